"""Making what a way has drawn: the one run behind every way's command, its progress and its report.

Frames go to their files as soon as they are made, so memory does not grow with the length of the video.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yozora.cli.options import DEFAULT_MODEL, Options

if TYPE_CHECKING:
    from yozora.clip import Recipe
    from yozora.create import Canvas, Generator, Native

STAGES = {"text": "reading the prompt", "sample": "sampling", "decode": "decoding"}
SHEET_FRAMES = 12


def make(options: Options, draw: Callable[[Native], Canvas]) -> None:
    """Draws a way's canvas for the model that is asked for, fills it, writes the files and says so. What is wrong is
    said as early as it can be known: before torch is imported, before weights are read, before anything is sampled."""
    files, sheets = options.files()
    seeds = options.seeds()
    options.check(seeds)
    start = time.perf_counter()
    generator, canvas = _load(options, draw)
    generator.check(canvas, seeds)
    cautions = generator.cautions(canvas)
    for line in cautions:
        print(f"warning: {line}", file=sys.stderr)
    timings = {"load": time.perf_counter() - start}
    recipes = generator.recipes(canvas, seeds, generator.settings(options.steps, options.guidance))
    videos = [Video(path, recipe, canvas) for path, recipe in zip(files, recipes, strict=True)]
    for video, path in zip(videos, sheets, strict=False):
        video.sheet = path
    _write(generator, canvas, seeds, options, videos, timings)
    timings["total"] = time.perf_counter() - start
    if options.as_json:
        print(json.dumps(_report(videos, timings, cautions), ensure_ascii=False))
    else:
        for video in videos:
            print(video.line(timings["total"]))


@dataclass
class Video:
    """One file that is made, and the frames of its contact sheet, where one is wanted."""

    path: Path
    recipe: Recipe
    canvas: Canvas
    sheet: Path | None = None
    count: int = 0
    seen: list[np.ndarray] = field(default_factory=list)

    def note(self, frame: np.ndarray) -> None:
        """Counts a frame and keeps it if the contact sheet shows it."""
        shown = self.canvas.shown
        if self.sheet and self.count in np.linspace(0, shown - 1, min(shown, SHEET_FRAMES)).round():
            self.seen.append(frame)
        self.count += 1

    def write_sheet(self) -> None:
        """Raises MediaError where it cannot."""
        if self.sheet:
            from yozora.clip import Clip

            frames = Clip(np.stack(self.seen), self.canvas.fps)
            Clip(frames.contact_sheet()[None], self.canvas.fps, self.recipe).write(self.sheet)

    def line(self, took: float) -> str:
        """What is said of it."""
        width, height = self.canvas.size
        length = "a picture" if self.count == 1 else f"{self.count} frames, {self.count / self.canvas.fps:.2f} s"
        return f"{self.path}: {width}x{height}, {length}, seed {self.recipe.seed}, made in {took:.1f} s"

    def report(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "path": str(self.path),
            "sheet": str(self.sheet) if self.sheet else None,
            "seed": self.recipe.seed,
            "size": list(self.canvas.size),
            "frames": self.count,
            "fps": self.canvas.fps,
            "seconds": self.count / self.canvas.fps,
            "recipe": asdict(self.recipe),
        }


def _load(options: Options, draw: Callable[[Native], Canvas]) -> tuple[Generator, Canvas]:
    """The canvas is drawn by the model's card, so that what is wrong with it is said before the weights are read."""
    from yozora.create import load
    from yozora.create.generator import read_native

    logging.getLogger("yozora").addHandler(logging.NullHandler())  # what it logs, the cautions say
    model = options.model or DEFAULT_MODEL
    native = read_native(model)
    canvas = draw(native)
    canvas.check(native.grid)
    return load(model, options.device), canvas


def _write(
    generator: Generator,
    canvas: Canvas,
    seeds: list[int],
    options: Options,
    videos: list[Video],
    timings: dict[str, float],
) -> None:
    """Writes every video as its frames come; `timings` receives the seconds of each stage."""
    from yozora.clip import FrameWriter
    from yozora.create import Progress, YozoraWarning

    def spent(stage: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        timings[stage] = timings.get(stage, 0.0) + now - mark
        mark = now

    mark = time.perf_counter()
    with warnings.catch_warnings(), _bars() as show:
        warnings.simplefilter("ignore", YozoraWarning)  # printed already
        with ExitStack() as stack:
            writers = [
                stack.enter_context(FrameWriter(video.path, canvas.size, canvas.fps, video.recipe)) for video in videos
            ]
            for event in generator.stream(canvas, seeds, steps=options.steps, guidance=options.guidance):
                if isinstance(event, Progress):
                    spent(event.stage)
                    show(event.stage, event.step, event.total)
                    continue
                spent("decode")
                for frame in event.frames:
                    writers[event.index].write(frame)
                    videos[event.index].note(frame)
                spent("write")
        for video in videos:
            video.write_sheet()
    spent("write")


@contextmanager
def _bars() -> Iterator[Any]:
    """A function `show(stage, step, total)` that draws bars on a terminal and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, step, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *left, console=Console(stderr=True), transient=True) as progress:
        tasks = {stage: progress.add_task(name, total=None, start=False) for stage, name in STAGES.items()}

        def show(stage: str, step: int, total: int) -> None:
            progress.start_task(tasks[stage])
            progress.update(tasks[stage], completed=step, total=total)

        yield show


def _report(videos: list[Video], timings: dict[str, float], cautions: list[str]) -> dict[str, Any]:
    return {
        "files": [video.report() for video in videos],
        "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        "warnings": cautions,
    }
