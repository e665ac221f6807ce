"""From several things: `yozora fill`, `blend`, `storyboard`; and `again`, from what a file was made from."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yozora.cli.making import make
from yozora.cli.options import ClipFile, Options, Prompt, Seconds, check_given, shared
from yozora.cli.shelf import Named, Shelf, open_shelf
from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.clip import Recipe


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
    make(options, lambda native, options: join.fill(cards, prompt, native=native, seconds=seconds, **options.asked))


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
    """Make a video that begins as A and ends as B; as long as the longer of them unless --seconds says more."""
    from yozora.create import join

    join.parse_curve(curve)
    check_given(prompt, [a, b], seconds)
    make(
        options,
        lambda native, options: join.blend(a, b, prompt, native=native, curve=curve, seconds=seconds, **options.asked),
    )


@shared()
def storyboard(
    board: Annotated[Path, typer.Argument(help="A .toml file of cards.", show_default=False)], *, options: Options
) -> None:
    """Make the cards of BOARD: each a time with a prompt, a picture or a video."""
    from yozora.create.board import read_board, storyboard

    cards, options = options.of_board(read_board(board))
    check_given("", [path for _, path in cards.files])
    make(options, lambda native, options: storyboard(cards, native=native, **options.asked))


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
    if recipe is not None and not raw and isinstance(enhanced, dict) and isinstance(enhanced.get("source"), str):
        _enhance_again(file, enhanced, options, prompt)
        return
    if recipe is None or not raw:
        raise CanvasError(f"{file} does not say how it was made: only files that yozora made can be made again")
    if options.size or options.aspect or options.resolution or (options.fit and not (enhanced or options.enhance)):
        raise CanvasError("what is made again keeps its size: leave --size, --aspect, --resolution and --fit out")
    if prompt is not None:
        check_prompt(prompt)
        if isinstance(cues := raw.get("cues"), list) and len(cues) > 1:
            raise CanvasError(f"{file} has several prompts: change them in its storyboard instead")
        raw["cues"] = [{"start": 0.0, "prompt": prompt}]
    if options.negative:
        raw["negative"] = options.negative
    _find_sources(raw, file)
    options = replace(
        options,
        seed=recipe.seed if options.seed is None else options.seed,
        model=options.model or recipe.model or None,
        lora=_found_loras(recipe, file) if options.lora is None else options.lora,
        reuse=recipe.reuse if options.reuse is None else options.reuse,
        interval=recipe.interval or None if options.interval is None else options.interval,
        weights=options.weights or recipe.weights or None,
        tile=options.tile or recipe.tile or None,
        rewrite=False if prompt is None else options.rewrite,  # what a recipe says has been rewritten, if it was to be
        **_sampled(recipe, options),
        **_enhanced(enhanced, options),
    )
    make(
        options,
        lambda native, options: Canvas.from_dict(raw),
        _shelf(recipe, file, options) if prompt is None else None,
    )


def _shelf(recipe: Recipe, file: Path, options: Options) -> Shelf | None:
    """The library with the clips that a video was begun from and that the model was shown, if it was. Raises
    CanvasError, ConfigError."""
    said, named, share, guidance = recipe.library, Named(), 0.0, None
    match said:
        case {"begin": str(source), "share": int() | float() as share}:
            named = Named(begin=source, ground=str(said.get("ground", "")))
    match said:
        case {"beside": [*sources], "retrieval_guidance": int() | float() as guidance}:
            named = replace(named, beside=tuple(map(str, sources)))
    if named == Named() or not isinstance(said.get("path"), str):
        return None
    return open_shelf(Path(_found(said["path"], file)), share, guidance, options.model, named)


def _sampled(recipe: Recipe, options: Options) -> dict[str, Any]:
    """The options that sample as a recipe says, but for what is asked for anew. Few-step weights know neither guidance
    nor a negative prompt: where such is asked of what they made, the full ones are used as the model's card says."""
    from yozora.diffusion import FLOW_MAP

    guided = options.sampling["guidance"] is not None or options.negative or (options.style and options.style.negative)
    if recipe.solver == FLOW_MAP and (guided or options.solver not in (None, FLOW_MAP)):
        return {}
    kept = {key: getattr(recipe, key) for key in ("steps", "guidance", "projected") if options.sampling[key] is None}
    return kept | {"solver": options.solver or recipe.solver or None}


def _find_sources(raw: dict[str, Any], file: Path) -> None:
    """Puts the sources of a recipe's anchors where they are found. Raises CanvasError."""
    anchors = raw.get("anchors")
    for anchor in anchors if isinstance(anchors, list) else ():
        for key in ("source", "mask"):
            name = anchor.get(key) if isinstance(anchor, dict) else None
            if isinstance(name, str) and name:
                anchor[key] = _found(name, file)


def _found_loras(recipe: Recipe, file: Path) -> list[str]:
    """The LoRAs of `file`, each FILE or FILE:SCALE, where they are found; one that is not what it was then is named in
    a warning. Raises CanvasError."""
    from yozora.models.folder import weights_digest
    from yozora.models.lora import parse_lora

    found = []
    for text, was in zip_longest(recipe.lora, recipe.lora_sha256[: len(recipe.lora)]):
        use = parse_lora(text)
        path = _found(use.path, file)
        if was and os.access(path, os.R_OK) and weights_digest(Path(path)) != was:
            line = f"warning: {path} is not the LoRA that {file} was made with (its SHA-256 is another)"
            print(f"{line}: what is made now is not the same", file=sys.stderr)
        found.append(str(replace(use, path=path)))
    return found


def _found(name: str, file: Path) -> str:
    """A source of `file`, by the name in its recipe: from here, or beside the file. Raises CanvasError."""
    for path in (name, str(file.parent / name)):
        if os.path.exists(path):
            return path
    raise CanvasError(f"{file} was made from {name}, which is not here: run this where it is")


def _enhance_again(file: Path, said: dict[str, Any], options: Options, prompt: str | None) -> None:
    """Makes what was only enhanced again from its source."""
    from yozora.cli.enhance import enhance

    found = Path(_found(said.pop("source"), file))
    if prompt is not None or options.negative or options.preset or options.variations != 1:
        raise CanvasError(f"{file} was only enhanced: there is no prompt, and there are no variations")
    wanted = _enhanced(said, options)
    size, fps = options.enhance or wanted["enhance"], wanted["enhance_fps"]
    enhance(found, options.output, size, fps, options.fit or said["fit"], options.as_json)


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
