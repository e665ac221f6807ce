"""Making what a way has drawn: the one run behind every way's command, its progress and its report.

Frames go to their files as soon as they are made, so memory does not grow with the length of the video.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yozora.cli.bars import Show, bars
from yozora.cli.options import DEFAULT_MODEL, Options
from yozora.cli.rewrite import understand
from yozora.cli.together import said_by_first, together
from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.cli.shelf import Shelf
    from yozora.clip import Recipe
    from yozora.create import Canvas, Chunk, Generator, Native, Progress
    from yozora.create.target import Target
    from yozora.models.enhancer import Enhancer
    from yozora.train.mesh import Mesh

SAMPLING = ("text", "sample", "decode")
SHEET_FRAMES = 12


Draw = Callable[["Native", Options], "Canvas"]


def make(options: Options, draw: Draw, shelf: Shelf | None = None) -> None:
    """Draws a way's canvas for the model that is asked for, fills it, writes the files and says so. What is wrong is
    said as early as it can be known: before torch is imported, before weights are read, before anything is sampled.
    Several processes, started by torchrun, share the work; the first of them writes. `shelf`: the library that fills in
    prompts and that sampling may begin from."""
    files, sheets = options.files()
    seeds = options.seeds()
    options.check(seeds)
    with together(options.device) as mesh:
        _make(options, draw, shelf, files, sheets, said_by_first(mesh, seeds), mesh)


def _make(
    options: Options,
    draw: Draw,
    shelf: Shelf | None,
    files: list[Path],
    sheets: list[Path],
    seeds: list[int],
    mesh: Mesh | None,
) -> None:
    start = time.perf_counter()
    generator, canvas, target, enhancer = _load(options, draw, shelf, mesh, [*files, *sheets])
    generator.check(canvas, seeds)
    settings = generator.settings(**options.sampling, negative=canvas.negative)
    cautions = generator.cautions(canvas, settings)
    for line in cautions:
        print(f"warning: {line}", file=sys.stderr)
    timings = {"load": time.perf_counter() - start}
    begin = shelf.begin(canvas, generator, settings) if shelf else None
    beside = shelf.beside(canvas, generator, settings) if shelf else None
    recipes = generator.recipes(canvas, seeds, settings, begin, beside)
    videos = [Video(path, recipe, canvas, target) for path, recipe in zip(files, recipes, strict=True)]
    for video, path in zip(videos, sheets, strict=False):
        video.sheet = path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the cautions, which were printed
        events = generator.stream(canvas, seeds, **options.sampling, begin=begin, beside=beside)
    if mesh is not None and not mesh.first:
        deque(events, maxlen=0)
        return
    _write(events, videos, enhancer, timings, shelf)
    timings["total"] = time.perf_counter() - start
    if options.as_json:
        print(json.dumps(_report(videos, timings, cautions), ensure_ascii=False))
    else:
        for video in videos:
            print(video.line(timings["total"]))
            if shelf:
                print(f"  {shelf.line(video)}")


def sources_of(canvas: Canvas) -> list[str]:
    """The files that a canvas is made from."""
    named = [(anchor.source, anchor.mask.source if anchor.mask else "") for anchor in canvas.anchors]
    return [name for names in named for name in names if name]


def keep_sources(outputs: Iterable[Path], sources: Iterable[str | Path]) -> None:
    """Raises CanvasError where a file would be replaced by what is made from it: it would be gone, and with it what the
    recipe speaks of."""
    given = {Path(source).resolve() for source in sources}
    for path in outputs:
        if path.resolve() in given:
            raise CanvasError(f"{path} is what this is made from, and would be replaced: choose another name with -o")


@dataclass
class Video:
    """One file that is made, and the frames of its contact sheet, where one is wanted."""

    path: Path
    made: Recipe
    canvas: Canvas
    target: Target | None = None
    sheet: Path | None = None
    count: int = 0
    seen: list[np.ndarray] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the file."""
        return self.target.size if self.target else self.canvas.size

    @property
    def fps(self) -> float:
        """The rate of the file."""
        return self.target.fps if self.target else self.canvas.fps

    @property
    def total(self) -> int:
        """Frames that the file will have."""
        return self.target.count(self.canvas.shown) if self.target else self.canvas.shown

    @property
    def recipe(self) -> Recipe:
        """What the file is made from."""
        return self.target.recipe(self.made) if self.target else self.made

    def frames(self, made: Iterable[np.ndarray], enhancer: Enhancer | None) -> Iterator[np.ndarray]:
        """The file's frames from those that the model made."""
        if self.target is None:
            return self._watched(made)
        from yozora.create.enhance import enhance

        return enhance(self._watched(made), self.target, enhancer)

    def _watched(self, made: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Passes frames on, and keeps those that the contact sheet shows: not enhanced, for it is an overview."""
        shown = self.canvas.shown
        wanted = set(np.linspace(0, shown - 1, min(shown, SHEET_FRAMES)).round()) if self.sheet else set[float]()
        for number, frame in enumerate(made):
            if number in wanted:
                self.seen.append(frame)
            yield frame

    @property
    def is_overview(self) -> bool:
        """Whether a file for one picture shows several frames."""
        return self.count > 1 and self.path.suffix.lower() == ".png"

    def write_sheet(self) -> None:
        """Raises MediaError where it cannot."""
        if self.sheet:
            from yozora.clip import Clip

            frames = Clip(np.stack(self.seen), self.canvas.fps)
            Clip(frames.contact_sheet()[None], self.canvas.fps, self.recipe).write(self.sheet)

    def line(self, took: float) -> str:
        """What is said of it."""
        width, height = self.size
        length = "a picture" if self.count == 1 else f"{self.count} frames, {self.count / self.fps:.2f} s"
        if self.is_overview:
            length += " as one contact sheet"
        return f"{self.path}: {width}x{height}, {length}, seed {self.recipe.seed}, made in {took:.1f} s"

    def report(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "path": str(self.path),
            "sheet": str(self.sheet) if self.sheet else None,
            "contact_sheet": self.is_overview,
            "seed": self.recipe.seed,
            "size": list(self.size),
            "frames": self.count,
            "fps": self.fps,
            "seconds": self.count / self.fps,
            "recipe": asdict(self.recipe),
        }


def _load(
    options: Options, draw: Draw, shelf: Shelf | None, mesh: Mesh | None, outputs: list[Path]
) -> tuple[Generator, Canvas, Target | None, Enhancer | None]:
    """The canvas is drawn by the model's card, so that what is wrong with it is said before the weights are read."""
    from yozora.create import load
    from yozora.create.enhance import load_enhancer
    from yozora.create.generator import choose_device, read_native
    from yozora.create.limits import parse_interval
    from yozora.create.settings import check_solver
    from yozora.models.tiled import check_side

    logging.getLogger("yozora").addHandler(logging.NullHandler())  # what it logs, the cautions say
    if options.solver is not None:
        check_solver(options.solver)
    model = DEFAULT_MODEL if options.model is None else options.model
    native = read_native(model)
    asked, options = options, options.within(native)
    drawn = draw(native, options)
    keep_sources(outputs, sources_of(drawn))
    canvas = understand(drawn, options, shelf.library if shelf else None)
    if options.style:
        canvas = options.style.on(canvas)
    canvas = replace(canvas, cues=said_by_first(mesh, canvas.cues))
    canvas.check(native.grid)
    if options.tile is not None:
        check_side(options.tile, native.grid.spatial)
    target = options.target(canvas.size, canvas.fps, canvas.shown)
    if target:
        canvas = replace(canvas, notes=(*canvas.notes, *options.cautions(canvas.size, target, options is not asked)))
    enhancer = load_enhancer(device=choose_device(options.device)) if target else None
    generator = load(
        model,
        options.device,
        lora=options.lora or (),
        reuse=options.reuse or 0.0,
        interval=parse_interval(options.interval or "0:1"),
        weights=options.weights,
        offload=options.offload,
        compiled=options.compiled,
        tile=options.tile,
        team=None if mesh is None else mesh.row,
    )
    return generator, canvas, target, enhancer


def _write(
    events: Iterator[Progress | Chunk],
    videos: list[Video],
    enhancer: Enhancer | None,
    timings: dict[str, float],
    shelf: Shelf | None,
) -> None:
    """Writes all videos side by side as their frames come; `timings` receives the seconds of each stage."""
    from yozora.clip import FrameWriter

    clock = Clock(timings)
    with bars([*SAMPLING, *(["enhance"] if enhancer else [])]) as show:
        made = split(events, len(videos), clock, show)
        if shelf:
            made = shelf.compare(made, videos)
        streams = [video.frames(frames, enhancer) for video, frames in zip(videos, made, strict=True)]
        with ExitStack() as stack:
            writers = [
                stack.enter_context(FrameWriter(video.path, video.size, video.fps, video.recipe)) for video in videos
            ]
            for frames in zip(*streams, strict=True):
                if enhancer:
                    clock.spent("enhance")
                for writer, video, frame in zip(writers, videos, frames, strict=True):
                    writer.write(frame)
                    video.count += 1
                clock.spent("write")
                if enhancer:
                    show("enhance", videos[0].count, videos[0].total)
        for video in videos:
            video.write_sheet()
    clock.spent("write")


class Clock:
    """Adds up the seconds spent in each stage."""

    def __init__(self, timings: dict[str, float]) -> None:
        self.timings, self.mark = timings, time.perf_counter()

    def spent(self, stage: str) -> None:
        """The time since the last call was spent in `stage`."""
        now = time.perf_counter()
        self.timings[stage] = self.timings.get(stage, 0.0) + now - self.mark
        self.mark = now


def split(events: Iterator[Progress | Chunk], count: int, clock: Clock, show: Show) -> list[Iterator[np.ndarray]]:
    """The frames of each of `count` videos out of what a Generator streams, to be read side by side: whichever needs a
    frame moves the run on, and what that makes of the others waits for them."""
    from yozora.create import Progress

    waiting = [deque[np.ndarray]() for _ in range(count)]

    def frames(index: int) -> Iterator[np.ndarray]:
        while True:
            while waiting[index]:
                yield waiting[index].popleft()
            event = next(events, None)
            if event is None:
                return
            if isinstance(event, Progress):
                clock.spent(event.stage)
                show(event.stage, event.step, event.total)
            else:
                clock.spent("decode")
                waiting[event.index].extend(event.frames)

    return [frames(index) for index in range(count)]


def _report(videos: list[Video], timings: dict[str, float], cautions: list[str]) -> dict[str, Any]:
    return {
        "files": [video.report() for video in videos],
        "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        "warnings": cautions,
    }
