"""How fast the world is: clips of 33x128x128 simulated and rendered a second.

    python bench/world.py [--seconds 10] [--threads 1 2]

Draws scenes from the full mix, prints a table and writes bench/results/world.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numba

from yozora.world import MIXES, Scene, render, sample_scene

RESULTS = Path(__file__).parent / "results" / "world.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure each row (default 10)")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--size", type=int, default=128, help="side of the square frames, pixels")
    parser.add_argument("--scenes", type=int, default=64, help="how many different scenes to go through")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    rows = []
    print(f"{'mix':8} {'truth':6} {'threads':>7} {'clips/s':>8} {'ms/frame':>9} {'CPU ms/frame':>13}")
    for name in ("simple", "full"):
        scenes = [sample_scene(seed, MIXES[name]) for seed in range(options.scenes)]
        for truth in (False, True):
            for threads in options.threads:
                row = measure(scenes, options.size, options.frames, truth, threads, options.seconds)
                rows.append({"mix": name, "truth": truth, "threads": threads, **row})
                print(
                    f"{name:8} {'yes' if truth else 'no':6} {threads:7d} {row['clips_per_second']:8.1f} "
                    f"{row['ms_per_frame']:9.2f} {row['cpu_ms_per_frame']:13.2f}",
                    flush=True,
                )
    report = {
        "frames": options.frames,
        "size": [options.size, options.size],
        "scenes": options.scenes,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_before": os.getloadavg(),
        "numba": numba.__version__,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n")


def measure(scenes: list[Scene], size: int, frames: int, truth: bool, threads: int, seconds: float) -> dict[str, Any]:
    """Renders clip after clip for `seconds`; the first, which may compile, is not counted."""
    render(scenes[0], size, size, 2, 16.0, truth=truth, threads=threads)
    clips, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        render(scenes[clips % len(scenes)], size, size, frames, 16.0, truth=truth, threads=threads)
        clips += 1
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "clips": clips,
        "clips_per_second": clips / wall,
        "ms_per_frame": 1000 * wall / clips / frames,
        "cpu_ms_per_frame": 1000 * cpu / clips / frames,
    }


if __name__ == "__main__":
    main()
