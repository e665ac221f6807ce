"""`yozora generate`: a prompt becomes a video file."""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.clip import Clip
    from yozora.create import Canvas, Generator

STAGES = {"text": "reading the prompt", "sample": "sampling", "decode": "decoding"}


def generate(
    prompt: Annotated[str, typer.Argument(help="What the video shows, in any language.", show_default=False)] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .mp4, .gif, .webp or .png (a picture).")
    ] = Path("out.mp4"),
    image: Annotated[Path | None, typer.Option(help="A picture to start from.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length; the nearest that fits is made.")] = None,
    size: Annotated[str | None, typer.Option(help="Exact size, WIDTHxHEIGHT.")] = None,
    aspect: Annotated[str | None, typer.Option(help="Aspect, for example 16:9, 1:1 or 9:16.")] = None,
    resolution: Annotated[str | None, typer.Option(help="Pixels of the short side, for example 128p.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps: more is slower and finer.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt; 1 is off.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video; random if not given.")] = None,
    variations: Annotated[int, typer.Option(help="How many videos to make, in one batch.")] = 1,
    negative: Annotated[str, typer.Option(help="What the video must not show.")] = "",
    model: Annotated[str, typer.Option(help="A shipped model's name or a folder.")] = "mini",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = "auto",
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this picture, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line a file.")] = False,
) -> None:
    """Make a video of PROMPT."""
    asked = {"seconds": seconds, "size": size, "aspect": aspect, "resolution": resolution, "negative": negative}
    first = secrets.randbelow(2**31) if seed is None else seed
    # what can be said without loading the model is said before
    files, sheets = _files(output, sheet, variations)
    seeds = [first + i for i in range(variations)]
    _check(prompt, image, asked, seeds, steps, guidance)

    start = time.perf_counter()
    generator = _load(model, device)
    canvas = _canvas(generator, prompt, image, output, asked)
    generator.check(canvas, seeds)
    cautions = generator.cautions(canvas)
    for line in cautions:
        print(f"warning: {line}", file=sys.stderr)
    timings = {"load": time.perf_counter() - start}
    clips = _run(generator, canvas, seeds, steps, guidance, timings)
    written = time.perf_counter()
    for path, clip in zip(files, clips, strict=True):
        clip.write(path)
    for path, clip in zip(sheets, clips, strict=False):
        _write_sheet(clip, path)
    timings["write"] = time.perf_counter() - written
    timings["total"] = time.perf_counter() - start
    if as_json:
        print(json.dumps(_report(files, sheets, clips, timings, cautions), ensure_ascii=False))
    else:
        for path, clip in zip(files, clips, strict=True):
            print(_line(path, clip, timings["total"]))


def _check(
    prompt: str,
    image: Path | None,
    asked: dict[str, Any],
    seeds: list[int],
    steps: int | None,
    guidance: float | None,
) -> None:
    """Raises CanvasError, MediaError for what no model could do. Needs no torch, so it is quick."""
    from yozora.create.canvas import check_prompt
    from yozora.create.limits import check_guidance, check_seeds, check_steps
    from yozora.create.sizes import Grid, Native, check_seconds, choose_size
    from yozora.create.ways import read_picture

    check_prompt(prompt, needed=image is None)
    check_prompt(asked["negative"], what="negative prompt")
    check_seeds(seeds)
    if steps is not None:
        check_steps(steps)
    if guidance is not None:
        check_guidance(guidance)
    if asked["seconds"] is not None:
        check_seconds(asked["seconds"])
    choose_size(Native(grid=Grid(1, 1, 1)), asked["size"], asked["aspect"], asked["resolution"])
    if image is not None:
        read_picture(image)


def _files(output: Path, sheet: Path | None, variations: int) -> tuple[list[Path], list[Path]]:
    """The videos' files and the contact sheets'. Raises CanvasError, MediaError where they cannot be written."""
    from yozora.clip import check_writable
    from yozora.create.limits import check_variations

    check_variations(variations)
    files = _numbered(output, variations)
    sheets = _numbered(sheet, variations) if sheet else []
    for path in sheets:
        if path.suffix.lower() != ".png":
            raise CanvasError(f"a contact sheet is a .png, not {path.name!r}")
    for path in [*files, *sheets]:
        check_writable(path)
    if {path.resolve() for path in files} & {path.resolve() for path in sheets}:
        raise CanvasError("the output and the contact sheet are the same file: name them differently")
    return files, sheets


def _load(model: str, device: str) -> Generator:
    from yozora.create import load

    logging.getLogger("yozora").addHandler(logging.NullHandler())  # what it logs, the cautions say
    return load(model, device)


def _canvas(generator: Generator, prompt: str, image: Path | None, output: Path, asked: dict[str, Any]) -> Canvas:
    """The way that was asked for: from a picture, a single picture (a .png without a length), or from text."""
    from yozora.create import image_to_video, text_to_image, text_to_video

    if image is not None:
        return image_to_video(image, prompt, native=generator.native, **asked)
    if output.suffix.lower() in (".png", ".jpg", ".jpeg") and asked["seconds"] is None:
        asked = {key: value for key, value in asked.items() if key != "seconds"}
        return text_to_image(prompt, native=generator.native, **asked)
    return text_to_video(prompt, native=generator.native, **asked)


def _run(
    generator: Generator,
    canvas: Canvas,
    seeds: list[int],
    steps: int | None,
    guidance: float | None,
    timings: dict[str, float],
) -> tuple[Clip, ...]:
    """The clips; `timings` receives the seconds of each stage."""
    from yozora.create import Progress, YozoraWarning

    result: tuple[Clip, ...] = ()
    before, last = 0.0, ""
    with warnings.catch_warnings(), _bars() as show:
        warnings.simplefilter("ignore", YozoraWarning)  # printed already
        for event in generator.run(canvas, seeds, steps=steps, guidance=guidance):
            if not isinstance(event, Progress):
                assert isinstance(event, tuple)
                result = event
                continue
            timings[event.stage] = timings.get(event.stage, 0.0) + event.seconds - before
            before, last = event.seconds, event.stage
            show(last, event.step, event.total)
    return result


@contextmanager
def _bars() -> Iterator[Any]:
    """A function `show(stage, step, total)` that draws bars on a terminal and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda stage, step, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {stage: progress.add_task(name, total=None, start=False) for stage, name in STAGES.items()}

        def show(stage: str, step: int, total: int) -> None:
            progress.start_task(tasks[stage])
            progress.update(tasks[stage], completed=step, total=total)

        yield show


def _numbered(path: Path, variations: int) -> list[Path]:
    """out.mp4 → out.mp4, or out-1.mp4, out-2.mp4 … for several."""
    if variations == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(variations)]


def _write_sheet(clip: Clip, path: Path) -> None:
    from yozora.clip import Clip

    Clip(clip.contact_sheet()[None], clip.fps, clip.recipe).write(path)


def _line(path: Path, clip: Clip, took: float) -> str:
    width, height = clip.size
    length = "a picture" if len(clip.frames) == 1 else f"{len(clip.frames)} frames, {clip.seconds:.2f} s"
    seed = clip.recipe.seed if clip.recipe else None
    return f"{path}: {width}x{height}, {length}, seed {seed}, made in {took:.1f} s"


def _report(
    files: list[Path], sheets: list[Path], clips: tuple[Clip, ...], timings: dict[str, float], cautions: list[str]
) -> dict[str, Any]:
    return {
        "files": [
            {
                "path": str(path),
                "sheet": str(sheets[i]) if sheets else None,
                "seed": clip.recipe.seed if clip.recipe else None,
                "size": list(clip.size),
                "frames": len(clip.frames),
                "fps": clip.fps,
                "seconds": clip.seconds,
                "recipe": asdict(clip.recipe) if clip.recipe else None,
            }
            for i, (path, clip) in enumerate(zip(files, clips, strict=True))
        ],
        "timings": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        "warnings": cautions,
    }
