"""From one clip: `yozora extend`, `loop`, `remix`, `inpaint`, `recut`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.cli.making import make
from yozora.cli.options import ClipFile, Options, Prompt, check_given, shared
from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.create import Canvas, Native

MEDIA = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png", ".jpg", ".jpeg")


@shared()
def extend(
    clip: ClipFile,
    prompt: Prompt = "",
    seconds: Annotated[float | None, typer.Option(help="How much is added.")] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Before the clip instead of after it.")] = False,
    *,
    options: Options,
) -> None:
    """Make what comes after CLIP, or before it; both are written."""
    from yozora.create import ways

    check_given(prompt, [clip], seconds)
    make(
        options,
        lambda native, options: ways.extend(
            clip, prompt, native=native, seconds=seconds, backward=backward, **options.asked
        ),
    )


@shared()
def loop(
    what: Annotated[str, typer.Argument(metavar="CLIP|PROMPT", help="A video, or what to show.", show_default=False)],
    prompt: Prompt = "",
    seconds: Annotated[
        float | None, typer.Option(help="Length from a prompt; from a clip, of what leads back to its beginning.")
    ] = None,
    *,
    options: Options,
) -> None:
    """Make a video without a seam: of CLIP, or of a PROMPT alone."""
    from yozora.create import ways

    is_file = (
        re.fullmatch(r"\S+\.[a-zA-Z0-9]{2,4}", what) is not None or what.lower().endswith(MEDIA) or os.path.isfile(what)
    )
    clip, text = (what, prompt) if is_file else (None, what)
    if not is_file and prompt:
        raise CanvasError(
            f"{what[:40]!r} is no video file, and there are two prompts: give a file and a prompt, or one"
        )
    check_given(text, [Path(what)] if is_file else [], seconds, needed=not is_file)

    def draw(native: Native, options: Options) -> Canvas:
        asked = options.asked if is_file else options.asked_freely
        return ways.loop(clip, text, native=native, seconds=seconds, **asked)

    make(options, draw)


@shared()
def remix(
    clip: ClipFile,
    prompt: Prompt,
    strength: Annotated[str, typer.Option(help="subtle (0.6), mild (0.85), strong (0.95), or 0 to 1.")] = "mild",
    *,
    options: Options,
) -> None:
    """Make CLIP again under another PROMPT."""
    from yozora.create import ways

    ways.parse_strength(strength)
    check_given(prompt, [clip], needed=True)
    make(options, lambda native, options: ways.remix(clip, prompt, native=native, strength=strength, **options.asked))


@shared()
def inpaint(
    clip: ClipFile,
    prompt: Prompt,
    mask: Annotated[Path, typer.Option(help="A picture or video, white where CLIP is invented.", show_default=False)],
    *,
    options: Options,
) -> None:
    """Make a region of CLIP anew; the rest stays as it is."""
    from yozora.create import ways

    check_given(prompt, [clip, mask], needed=True)
    make(options, lambda native, options: ways.inpaint(clip, prompt, mask, native=native, **options.asked))


@shared()
def recut(
    clip: ClipFile,
    prompt: Prompt = "",
    keep: Annotated[list[str] | None, typer.Option(help="A piece to keep, in seconds: 0-1.5. Repeatable.")] = None,
    to: Annotated[
        float | None, typer.Option(help="Where the video ends, in seconds; else with the last piece.")
    ] = None,
    *,
    options: Options,
) -> None:
    """Keep pieces of CLIP where they are, and make what is between and after them."""
    from yozora.create import join

    pieces = join.check_pieces([parse_piece(piece) for piece in keep or []])
    check_given(prompt, [clip], to)
    make(options, lambda native, options: join.recut(clip, pieces, prompt, native=native, to=to, **options.asked))


def parse_piece(text: str) -> tuple[float, float]:
    """(0.0, 1.5) from "0-1.5". Raises CanvasError."""
    match = re.fullmatch(r"\s*(\d{0,6}\.?\d{1,9})\s*-\s*(\d{0,6}\.?\d{1,9})\s*", text)
    if not match:
        raise CanvasError(f"{text[:40]!r} is no piece: write FROM-TO in seconds, for example 0-1.5")
    return float(match[1]), float(match[2])
