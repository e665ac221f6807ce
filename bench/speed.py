"""How long does a prompt take to become an MP4? The shipped model at its native size and length, warm, by stage."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from common import peak_memory, show_table, write_results

import yozora
from yozora.clip import Clip
from yozora.create import Canvas, Generator, Progress, text_to_video
from yozora.create.settings import Settings

PROMPT = "a red ball bounces on the grass while the camera orbits"
STAGES = {"text": "text", "sample": "transformer", "decode": "decode", "encode": "encode"}
TARGET = 1.0  # seconds of work for each second of video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--runs", type=int, default=3, help="the median of so many, after one to warm up")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--solver", help="flow-map: the few-step weights")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    started = time.perf_counter()
    generator = yozora.load(options.model, device=options.device)
    loading = time.perf_counter() - started
    settings = generator.settings(options.steps, options.guidance, options.solver)
    canvas = text_to_video(PROMPT, native=generator.native)
    with tempfile.TemporaryDirectory() as folder:
        timings = [
            time_run(generator, canvas, seed, Path(folder) / "out.mp4", settings) for seed in range(1 + options.runs)
        ]
    cold, warm = timings[0], timings[1:]
    median = {stage: statistics.median(run[stage] for run in warm) for stage in STAGES}
    total = statistics.median(sum(run.values()) for run in warm)
    shape = f"{canvas.frames} frames of {canvas.width}x{canvas.height}, {canvas.seconds:.2f} s, {settings.steps} steps"
    rows = [
        [name, f"{median[stage]:.3f}", f"{median[stage] / canvas.seconds:.3f}"] for stage, name in STAGES.items()
    ] + [
        ["prompt to MP4", f"{total:.3f}", f"{total / canvas.seconds:.3f}"],
        ["target", "", f"{TARGET:.3f}"],
        ["first run", f"{sum(cold.values()):.3f}", f"{sum(cold.values()) / canvas.seconds:.3f}"],
        ["loading", f"{loading:.3f}", ""],
    ]
    show_table(f"{options.model}: {shape}", ["stage", "seconds", "a second of video"], rows)
    print(f"peak memory {peak_memory():.0f} MiB")
    write_results(
        "speed",
        {
            "model": options.model,
            "canvas": {"frames": canvas.frames, "size": canvas.size, "fps": canvas.fps, "seconds": canvas.seconds},
            "settings": vars(settings),
            "seconds": {STAGES[stage]: round(value, 4) for stage, value in median.items()} | {"total": round(total, 4)},
            "seconds_per_second": round(total / canvas.seconds, 3),
            "target": TARGET,
            "first_run": round(sum(cold.values()), 3),
            "loading": round(loading, 3),
            "peak_memory_mib": round(peak_memory()),
        },
    )


def time_run(generator: Generator, canvas: Canvas, seed: int, path: Path, settings: Settings) -> dict[str, float]:
    """Seconds of each stage of one run, from the prompt to the file."""
    ends, clip = dict.fromkeys(STAGES, 0.0), None
    started = time.perf_counter()
    for event in generator.run(canvas, seed, steps=settings.steps, guidance=settings.guidance, solver=settings.solver):
        if isinstance(event, Progress):
            ends[event.stage] = time.perf_counter() - started
        else:
            clip = event
    assert isinstance(clip, Clip)
    clip.write(path)
    ends["encode"] = time.perf_counter() - started
    before = [0.0, *list(ends.values())[:-1]]
    return {stage: end - start for (stage, end), start in zip(ends.items(), before, strict=True)}


if __name__ == "__main__":
    main()
