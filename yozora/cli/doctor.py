"""`yozora doctor`: what this machine can run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from yozora.errors import YozoraError


@dataclass(frozen=True)
class Finding:
    """One line: `state` is "ok", "note" (works, with less) or "fail" (the main job does not run)."""

    what: str
    state: str
    found: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    measure: Annotated[bool, typer.Option(help="Run the shipped model for a moment to see how quick it is.")] = True,
) -> None:
    """Say what this machine can run. Exits with 1 where it cannot generate a video."""
    checks: list[Callable[[], Finding]] = [_python, _torch, _cpu, _memory, _gpu, _media, _world, _logs, _model]
    findings = [check() for check in checks]
    broken = any(finding.state == "fail" for finding in findings)
    if measure and not broken:
        findings.append(_speed())
    if as_json:
        print(json.dumps({"ok": not broken, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print(f"{finding.state:>4}  {finding.what:<10} {finding.found}")
    if broken:
        raise typer.Exit(1)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", "fail", f"cannot be imported ({error}): pip install torch")
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cpu() -> Finding:
    try:
        from torch import cpu
        from torch.backends.cpu import get_cpu_capability

        from yozora.models.attention import TILES
    except ImportError:
        return Finding("cpu", "note", f"{_cores()} cores")
    quick = TILES or getattr(cpu, "_is_avx512_bf16_supported", lambda: False)()
    bf16 = "quick bfloat16" if quick else "no quick bfloat16: float32 is used, about a third of the speed"
    return Finding("cpu", "ok" if quick else "note", f"{_cores()} cores, {get_cpu_capability()}, {bf16}")


def _cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    total = _memory_bytes()
    if total is None:
        return Finding("memory", "note", "size unknown")
    found = f"{total / 2**30:.1f} GiB"
    if total < 2 * 2**30:
        return Finding("memory", "note", f"{found}: little; 2 GiB are comfortable")
    return Finding("memory", "ok", found)


def _memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less."""
    sizes = []
    try:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError, AttributeError):
        pass
    return min(sizes, default=None)


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("gpu", "note", "unknown without torch")
    if not torch.cuda.is_available():
        return Finding("gpu", "note", "none: the CPU is used")
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Finding("gpu", "ok", ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in names))


def _media() -> Finding:
    try:
        import av
    except ImportError as error:
        return Finding("media", "fail", f"PyAV cannot be imported ({error}): pip install av")
    wanted = {"mp4": "libx264", "gif": "gif", "webp": "libwebp_anim", "png": "png"}
    missing = [ending for ending, codec in wanted.items() if codec not in av.codecs_available]
    if "mp4" in missing:
        return Finding("media", "fail", f"PyAV {av.__version__} cannot write H.264: reinstall it from its wheel")
    found = f"PyAV {av.__version__} writes {', '.join(ending for ending in wanted if ending not in missing)}"
    return Finding("media", "note" if missing else "ok", found)


def _world() -> Finding:
    return _extra("world", "numba", "the simulated world and training")


def _logs() -> Finding:
    return _extra("logs", "tensorboard", "training curves")


def _extra(what: str, module: str, use: str) -> Finding:
    if find_spec(module) is None:
        extra = "world" if module == "numba" else "train"
        return Finding(what, "note", f"{module} is not installed; for {use}: pip install 'yozora[{extra}]'")
    return Finding(what, "ok", f"{module} {metadata.version(module)}, for {use}")


def _model() -> Finding:
    try:
        from yozora.models.registry import list_models

        names = [card.name for card in list_models()]
    except (ImportError, YozoraError) as error:
        return Finding("models", "fail", f"none can be loaded: {error}")
    if not names:
        return Finding("models", "fail", "none is shipped here: generate with --model FOLDER, or train one")
    return Finding("models", "ok", ", ".join(names))


def _speed() -> Finding:
    """Three steps of the first shipped model at its native size and length, scaled to all of its steps."""
    try:
        from yozora.create import Progress, load, text_to_video
        from yozora.models.registry import list_models

        card = list_models()[0]
        generator = load(card.name)
        canvas = text_to_video("a red ball", native=generator.native)
        ends = {}
        for event in generator.run(canvas, steps=3):
            if isinstance(event, Progress):
                ends[event.stage, event.step] = event.seconds
    except YozoraError as error:
        return Finding("speed", "fail", str(error))
    step = (ends["sample", 3] - ends["sample", 1]) / 2  # the first one warms up
    decode = max(ends.values()) - ends["sample", 3]
    steps = generator.settings().steps
    took, length = step * steps + decode, canvas.seconds
    found = f"{card.name} on {generator.bundle.device}: about {took:.1f} s of work for {length:.1f} s of video"
    return Finding("speed", "ok", f"{found} of {canvas.width}x{canvas.height} ({steps} steps)")
