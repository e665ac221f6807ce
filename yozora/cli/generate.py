"""From text and from one picture: `yozora generate`, `image`, `animate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.cli.making import make
from yozora.cli.options import Options, Prompt, Seconds, check_given, shared
from yozora.cli.shelf import open_shelf
from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.create import Canvas, Native

PICTURES = (".png", ".jpg", ".jpeg")


@shared()
def generate(
    prompt: Prompt = "",
    image: Annotated[Path | None, typer.Option(help="A picture to start from.")] = None,
    seconds: Seconds = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Clips to fill the prompt in with, and to begin from.")
    ] = None,
    warm: Annotated[
        float, typer.Option(metavar="SHARE", help="Steps that a close clip of the library saves; 0: none.")
    ] = 0.4,
    retrieval_guidance: Annotated[
        float | None,
        typer.Option(metavar="SCALE", help="How much clips of the library count that the model is shown; 0: none."),
    ] = None,
    *,
    options: Options,
) -> None:
    """Make a video of PROMPT."""
    check_given(prompt, [image] if image else [], seconds, needed=image is None)
    shelf = open_shelf(library, warm, retrieval_guidance, options.model) if library else None
    if retrieval_guidance is not None and library is None:
        raise CanvasError("--retrieval-guidance is for clips of a library: name one with --library")

    def draw(native: Native, options: Options) -> Canvas:
        """From a picture, a single picture (a .png without a length), or from text."""
        from yozora.create import image_to_video, text_to_image, text_to_video

        if image is not None:
            return image_to_video(image, prompt, native=native, seconds=seconds, **options.asked)
        if options.output.suffix.lower() in PICTURES and seconds is None:
            return text_to_image(prompt, native=native, **options.asked_freely)
        return text_to_video(prompt, native=native, seconds=seconds, **options.asked_freely)

    make(options, draw, shelf)


@shared(output=Path("out.png"))
def image(prompt: Prompt, *, options: Options) -> None:
    """Make one picture of PROMPT."""
    from yozora.create import text_to_image

    check_given(prompt, needed=True)
    make(options, lambda native, options: text_to_image(prompt, native=native, **options.asked_freely))


@shared()
def animate(
    image: Annotated[Path, typer.Argument(help="The picture to start from.", show_default=False)],
    prompt: Prompt = "",
    seconds: Seconds = None,
    *,
    options: Options,
) -> None:
    """Make a video that starts from IMAGE."""
    from yozora.create import image_to_video

    check_given(prompt, [image], seconds)
    make(
        options, lambda native, options: image_to_video(image, prompt, native=native, seconds=seconds, **options.asked)
    )
