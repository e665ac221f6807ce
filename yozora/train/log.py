"""What is said of a run while it goes on: a line from time to time, and everything to TensorBoard, and to Weights &
Biases where that is asked for.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
from yozora.train.config import Run
from yozora.train.mesh import ALONE, Mesh

AMOUNTS = ("tokens", "flops")  # figures of which a second's sum is told, not a step's mean
ADDED = (*AMOUNTS, "loss", "flow", "layout")  # of which the parts of a step add up
SAMPLES = "samples"  # the folder of a run's, and what they are called
QUIET = ("loss", "samples_per_second")  # of the line, since it says them already


def joined(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures of a step, of those of its parts: sums, or means over the parts that have them."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    said = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(values) / (1 if name in ADDED else len(values)) for name, values in said.items()}


class Log:
    """One line every `log_every` steps with loss, samples/s and time left, and everything to TensorBoard, for all
    processes of the mesh together.

    Figures are means over the steps that have them. Of `tokens` and `flops` (of all passes of a step) it tells how many
    a second, and which part of what the devices reach in matrix products alone (MFU). What TensorBoard was told before
    of steps after `begun` is hidden once one of them is made again."""

    def __init__(self, run: Run, device: torch.device, mesh: Mesh = ALONE, begun: int = 0):
        self.run, self.device, self.mesh = run, device, mesh
        self.writers = _writers(run, begun) if mesh.first else []
        self.started = self.since = time.monotonic()
        self.steps = self.total_steps = self.samples = 0
        self.sums: dict[str, tuple[float, int]] = {}

    def step(self, step: int, samples: int, figures: dict[str, float]) -> None:
        """Takes note of a step's figures; those that are not finite do not count."""
        self.steps += 1
        self.samples += samples
        for name, value in figures.items():
            if math.isfinite(value):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + value, count + 1)
        if step % self.run.log_every and step != self.run.steps:
            return
        now = time.monotonic()
        self.total_steps += self.steps
        means = self._means(now - self.since)
        for writer in self.writers:
            writer(means, step)
        left = (self.run.steps - step) * (now - self.started) / self.total_steps
        extra = "  ".join(f"{n} {v:.4g}" for n, v in means.items() if n not in QUIET and "/" not in n)
        self.say(
            f"step {step}/{self.run.steps}  loss {means.get('loss', math.nan):.4f}  "
            f"{means['samples_per_second']:.1f} samples/s  {int(left // 60)}:{int(left % 60):02d} left  {extra}"
        )
        self.since, self.steps, self.samples, self.sums = now, 0, 0, {}

    def show(self, step: int) -> None:
        """Shows what a step's samples are: videos, pictures and texts."""
        if self.writers:
            files = sorted((self.run.out / SAMPLES).glob(f"{step:07d}*"))
            for writer in self.writers:
                writer.show({f"{SAMPLES}/{_name_of(file, step)}": file for file in files}, step)

    def say(self, line: str) -> None:
        """Prints a line, once for all processes."""
        if self.mesh.first:
            print(line, flush=True)

    def close(self) -> None:
        """Ends it."""
        for writer in self.writers:
            writer.close()

    def _means(self, seconds: float) -> dict[str, float]:
        """Of all processes. Those that share the tokens of the same clips say the same of them."""
        heard = self.mesh.gather((self.samples, self.sums, memory(self.device)))
        means = {}
        for name in dict.fromkeys(name for _, sums, _ in heard for name in sums):
            said = [sums[name] for _, sums, _ in heard if name in sums]
            if name in AMOUNTS:
                means[f"{name}_per_second"] = sum(total for total, _ in said) / self.mesh.context / seconds
            elif name in ADDED:
                means[name] = sum(total / count for total, count in said) / self.mesh.context
            else:
                means[name] = sum(total for total, _ in said) / sum(count for _, count in said)
        means["samples_per_second"] = sum(samples for samples, _, _ in heard) / self.mesh.context / seconds
        if "flops_per_second" in means:
            rate = matmul_rate(self.device, self.run.precision) * self.mesh.size
            means["mfu"] = means["flops_per_second"] / rate
        means["memory_mib"] = max(memory for _, _, memory in heard)
        return means


class _TensorBoard:
    def __init__(self, run: Run, begun: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("training logs need TensorBoard: pip install 'yozora[train]'") from None
        self.folder, self.before, self.begun = run.out / "tensorboard", threading.excepthook, begun
        self.hidden = False  # what is there of later steps
        with self._writing():
            self.writer = SummaryWriter(str(self.folder))
        threading.excepthook = self._unless_written_by

    def __call__(self, means: dict[str, float], step: int) -> None:
        with self._writing():
            if "loss" in means and not self.hidden:
                self._hide()
            for name, value in means.items():
                self.writer.add_scalar(name, value, step)

    def _hide(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        events = self.writer.file_writer
        assert events is not None
        events.add_event(Event(session_log=SessionLog(status=SessionLog.START)), self.begun + 1)
        self.hidden = True

    def show(self, files: dict[str, Path], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        events = self.writer.file_writer
        assert events is not None
        with self._writing():
            for name, file in files.items():
                if file.suffix == ".txt":
                    self.writer.add_text(name, file.read_text(encoding="utf-8"), step)
                    continue
                image = Summary.Image(colorspace=3, encoded_image_string=_picture(file))
                events.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self) -> None:
        with self._writing():
            self.writer.close()
        threading.excepthook = self.before

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises ConfigError where the disk does not take it."""
        try:
            yield
        except OSError as error:
            raise ConfigError(f"cannot write {self.folder} ({error.strerror}); is the disk full?") from None

    def _unless_written_by(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread of its own; what fails there is raised here, at the next figure, and need not
        be printed as well."""
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            self.before(failed)


class _WeightsAndBiases:
    def __init__(self, run: Run) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("run.wandb needs Weights & Biases: pip install wandb, or leave it out") from None
        about = {"project": run.wandb, "name": run.out.name, "dir": str(run.out), "config": run.model_dump(mode="json")}
        try:
            self.run: Any = wandb.init(**about)
        except Exception as error:  # of which it has many
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"run.wandb cannot be told ({reason}); run `wandb login`, or leave it out") from None

    def __call__(self, means: dict[str, float], step: int) -> None:
        self.run.log(means, step=step)

    def show(self, files: dict[str, Path], step: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        kinds = {".mp4": lambda file: wandb.Video(str(file), format="mp4"), ".png": lambda file: wandb.Image(str(file))}
        shown = {name: kinds[file.suffix](file) for name, file in files.items() if file.suffix in kinds}
        self.run.log(shown, step=step)

    def close(self) -> None:
        self.run.finish()


def _name_of(file: Path, step: int) -> str:
    """What a sample is called from step to step: its number, or that it is the sheet of all."""
    return file.stem.removeprefix(f"{step:07d}").lstrip("-") or ("read" if file.suffix == ".txt" else "sheet")


def _picture(file: Path) -> bytes:
    """A picture's bytes; of a video those of a GIF, which TensorBoard shows moving."""
    if file.suffix != ".mp4":
        return file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        Clip.read(file).write(Path(folder) / "a.gif")
        return (Path(folder) / "a.gif").read_bytes()


def _writers(run: Run, begun: int) -> list[_TensorBoard | _WeightsAndBiases]:
    return [_TensorBoard(run, begun), *([_WeightsAndBiases(run)] if run.wandb else [])]


def memory(device: torch.device) -> float:
    """The most memory that was held so far, MiB: the GPU's, or the process's own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@cache
def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second that the device reaches in plain matrix products, in the type that is trained in."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16 if precision == "bf16" else quick_dtype(device)
    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        begun = time.perf_counter()
        other = one @ one
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    del other
    return best
