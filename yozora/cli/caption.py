"""`yozora caption`: what clips show, in words."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.errors import ConfigError, MediaError, needing

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
    board: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Of a clip: also write a storyboard to edit and make anew."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what is listed already.")] = False,
) -> None:
    """Describe a clip, or every clip and picture in a folder: a line of JSON each, for `yozora train lora`.

    Interrupt it at any time: the same command goes on where it stopped."""
    from yozora.captions import caption_files, load_captioner
    from yozora.captions.files import LIST, listed_otherwise, media_in

    if board and (not path.is_file() or output):
        raise ConfigError("--board is for one clip, whose caption is shown: give a file, and no -o")
    with needing("captions need", "evaluate"):
        chosen = load_captioner(captioner, language)
        if path.is_file() and output is None:
            _show(path, chosen, board)
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


def _show(path: Path, captioner: Captioner, board: Path | None) -> None:
    """Prints what is said of one file, and writes it to a storyboard where one is wanted."""
    from yozora.captions.board import board_of, write_board
    from yozora.clip import Clip

    clip = Clip.read(path)
    said = captioner.caption(clip)
    if board:
        write_board(board_of(said, clip, path.name), board)
    print(said.short)
    print(said.dense)
    if said.timed:
        print(said.timed)
    if board:
        print(f"{board}: edit it, then: yozora storyboard {shlex.quote(str(board))} -o new.mp4")
