"""`yozora caption`: what clips show, in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.errors import MediaError, needing

if TYPE_CHECKING:
    from yozora.captions import Captioner


def caption(
    path: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="A clip, or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The list to write; of a folder, captions.jsonl in it unless told."),
    ] = None,
    captioner: Annotated[
        str,
        typer.Option(metavar="NAME", help="world (the shipped networks), openai:MODEL@URL, or a model folder."),
    ] = "world",
    language: Annotated[str, typer.Option(help="en, de, fr or es.")] = "en",
    again: Annotated[bool, typer.Option("--again", help="Also what is listed already.")] = False,
) -> None:
    """Describe a clip, or every clip and picture in a folder: a line of JSON each, for `yozora train lora`.

    Interrupt it at any time: the same command goes on where it stopped."""
    from yozora.captions import caption_files, load_captioner
    from yozora.captions.files import LIST, listed_otherwise, media_in

    with needing("captions need", "evaluate"):
        chosen = load_captioner(captioner, language)
        if path.is_file() and output is None:
            _show(path, chosen)
            return
        target = output or path / LIST
        files, made, failed = media_in(path), 0, 0
        if not again and (others := listed_otherwise(target, files, chosen)):
            print(
                f"warning: {target} has captions of {len(others)} of these files by another captioner or in another "
                "language, which stay (--again makes them anew)",
                file=sys.stderr,
            )
        for done in caption_files(path, chosen, target, again):
            if done.caption is None:
                failed += 1
                print(f"warning: {done.name}: {done.reason}", file=sys.stderr)
            else:
                made += 1
                print(f"{done.name}: {done.caption.short}")
    if failed == len(files):
        raise MediaError(f"none of the {failed} in {path} could be captioned: the warnings say why")
    passed = len(files) - made - failed
    counts = {"left out": failed, "listed already": passed}
    print(f"{target}: {made} captioned" + "".join(f", {count} {what}" for what, count in counts.items() if count))


def _show(path: Path, captioner: Captioner) -> None:
    """Prints what is said of one file."""
    from yozora.clip import Clip

    said = captioner.caption(Clip.read(path))
    print(said.short)
    print(said.dense)
    if said.timed:
        print(said.timed)
