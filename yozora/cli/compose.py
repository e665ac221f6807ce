"""From several things: `yozora fill`, `blend`, `storyboard`; and `again`, from what a file was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from yozora.cli.making import make
from yozora.cli.options import ClipFile, Options, Prompt, Seconds, check_given, shared
from yozora.errors import CanvasError


@shared()
def fill(
    prompt: Prompt = "",
    at: Annotated[list[str] | None, typer.Option(help="SECONDS=FILE, a picture or video. Repeatable.")] = None,
    seconds: Seconds = None,
    *,
    options: Options,
) -> None:
    """Make what is between pictures and videos at given times."""
    from yozora.create import join

    cards = [parse_card(card) for card in at or []]
    for time, _ in cards:
        join.check_time(time)
    check_given(prompt, [path for _, path in cards], seconds)
    make(options, lambda native: join.fill(cards, prompt, native=native, seconds=seconds, **options.asked))


@shared()
def blend(
    a: ClipFile,
    b: ClipFile,
    prompt: Prompt = "",
    curve: Annotated[
        str, typer.Option(help="transition, mix, or points TIME:SHARE,… of B, all from 0 to 1.")
    ] = "transition",
    seconds: Seconds = None,
    *,
    options: Options,
) -> None:
    """Make a video that begins as A and ends as B."""
    from yozora.create import join

    join.parse_curve(curve)
    check_given(prompt, [a, b], seconds)
    make(options, lambda native: join.blend(a, b, prompt, native=native, curve=curve, seconds=seconds, **options.asked))


@shared()
def storyboard(
    board: Annotated[Path, typer.Argument(help="A .toml file of cards.", show_default=False)], *, options: Options
) -> None:
    """Make the cards of BOARD: each a time with a prompt, a picture or a video."""
    from yozora.create.board import read_board, storyboard

    cards = read_board(board)
    check_given("", [path for _, path in cards.files])
    make(options, lambda native: storyboard(cards, native=native, **options.asked))


@shared()
def again(
    file: Annotated[Path, typer.Argument(help="A file that yozora made.", show_default=False)],
    prompt: Annotated[str | None, typer.Option(help="Another prompt.")] = None,
    *,
    options: Options,
) -> None:
    """Make FILE again from the recipe in it, with other settings where they are given."""
    from yozora.clip import open_frames
    from yozora.create.canvas import Canvas, check_prompt

    with open_frames(file) as reader:
        recipe = reader.recipe
    raw = dict(recipe.canvas) if recipe else {}
    enhanced = raw.pop("enhance", None)
    if recipe is None or not raw:
        raise CanvasError(f"{file} does not say how it was made: only files that yozora made can be made again")
    if options.size or options.aspect or options.resolution:
        raise CanvasError("what is made again keeps its size: leave --size, --aspect and --resolution out")
    if prompt is not None:
        check_prompt(prompt)
        if len(raw.get("cues") or ()) > 1:
            raise CanvasError(f"{file} has several prompts: change them in its storyboard instead")
        raw["cues"] = [{"start": 0.0, "prompt": prompt}]
    if options.negative:
        raw["negative"] = options.negative
    options = replace(
        options,
        seed=recipe.seed if options.seed is None else options.seed,
        model=options.model or recipe.model or None,
        solver=options.solver or recipe.solver or None,
        **{key: getattr(recipe, key) for key in ("steps", "guidance") if options.sampling[key] is None},
        **_enhanced(enhanced, options),
    )
    make(options, lambda native: Canvas.from_dict(raw))


def _enhanced(said: Any, options: Options) -> dict[str, Any]:
    """The options that enhance as a recipe says, but for what is asked for anew. Raises CanvasError."""
    match said:
        case None:
            return {}
        case {"size": [int(width), int(height)], "fps": int() | float() as fps, "fit": str(fit)}:
            fps = fps if options.enhance_fps is None else options.enhance_fps
            if options.enhance is not None:
                return {"enhance_fps": fps}
            return {"enhance": f"{width}x{height}", "enhance_fps": fps, "fit": options.fit or fit}
    raise CanvasError("the recipe does not say rightly how the file was enhanced")


def parse_card(text: str) -> tuple[float, Path]:
    """(2.5, the path b.mp4) from "2.5=b.mp4". Raises CanvasError."""
    time, equals, path = text.partition("=")
    try:
        if equals and path:
            return float(time), Path(path)
    except ValueError:
        pass
    raise CanvasError(f"{text[:40]!r} is no card: write SECONDS=FILE, for example 2.5=b.mp4")
