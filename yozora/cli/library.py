"""`yozora library`: clips to look things up in, for `yozora generate --library`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.errors import ConfigError, needing, printable

if TYPE_CHECKING:
    from yozora.prompts.stock import Added

library = typer.Typer(
    help="Clips to look things up in: `yozora generate --library` fills prompts in with them and begins from them.",
    no_args_is_help=True,
)
EVERY = 100  # clips after which progress is said

Folder = Annotated[Path, typer.Option("--library", metavar="DIR", help="The library's folder.")]
DEFAULT = Path("library")


@library.command()
def add(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER|SHARDS]",
            help="Clips with captions beside them, WebDataset shards, or a pool of latents.",
            show_default=False,
        ),
    ] = None,
    world: Annotated[int | None, typer.Option(metavar="N", help="Render N scenes of the simulated world.")] = None,
    folder: Folder = DEFAULT,
    model: Annotated[str, typer.Option(help="The model whose latents are kept.")] = "mini",
    mix: Annotated[str, typer.Option(help="Which scenes: full or simple.")] = "simple",
    seed: Annotated[int, typer.Option(help="The first scene's seed; the others follow.")] = 0,
    caption: Annotated[str, typer.Option(help="What is said of clips without a caption of their own.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
) -> None:
    """Put clips in: a folder's, shards', or scenes of the simulated world.

    Interrupt it at any time: the same command goes on where it stopped; what changed since is put in anew."""
    if (source is None) == (world is None):
        raise ConfigError("name a folder (or shards) of clips, or how many scenes of the world: --world N")
    with needing("a library needs", "understand,world"):
        from yozora.prompts.stock import add_footage, add_pool, add_world, is_pool, library_for, load_coder

        coder = load_coder(model, device)
        shelf = library_for(folder, coder)
        if world is not None:
            made = _count(add_world(shelf, coder, world, mix, seed))
        elif source is not None and is_pool(source):
            made = _count(add_pool(shelf, coder, source))
        else:
            assert source is not None
            made = _count(add_footage(shelf, coder, source, caption))
    print(f"{folder}: {made} clips put in, {len(shelf)} in all")


@library.command()
def search(
    text: Annotated[str, typer.Argument(help="What the clips show.", show_default=False)],
    folder: Folder = DEFAULT,
    count: Annotated[int, typer.Option("-n", "--count", help="How many clips.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a clip.")] = False,
) -> None:
    """Show the clips that show what TEXT states, and those whose captions are nearest in meaning."""
    from yozora.create.canvas import check_prompt
    from yozora.prompts.library import open_library
    from yozora.prompts.retrieval import search_by_facts

    check_prompt(text, needed=True)
    for match in search_by_facts(open_library(folder), text, count):
        if as_json:
            print(json.dumps(asdict(match), ensure_ascii=False))
        else:
            print(f"{match.similarity:.2f}  {printable(match.source)}  {printable(match.caption)}")


@library.command()
def remove(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help='Names, as `search` shows them; "world/*" for many.')
    ],
    folder: Folder = DEFAULT,
) -> None:
    """Take clips out, and off the disk."""
    from yozora.prompts.library import open_library

    shelf = open_library(folder)
    gone = sum(_removed(shelf.remove, source) for source in sources)
    print(f"{folder}: {gone} clips taken out, {len(shelf)} left")


@library.command()
def stats(
    folder: Folder = DEFAULT, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what there is in a library."""
    from yozora.prompts.library import open_library

    said = open_library(folder).stats()
    if as_json:
        print(json.dumps(asdict(said)))
        return
    print(f"{said.clips} clips, {said.bytes / 2**20:.1f} MiB, latents of {said.model} ({said.version[:12]})")
    for size, count in said.sizes.items():
        print(f"  {count} of {size}")
    print("  searched by an index of nearest neighbours" if said.indexed else "  searched one by one: exact")


def _count(added: Iterator[Added]) -> int:
    """How many clips were put in; says now and then how many so far, and what was left out."""
    made = passed = 0
    for one in added:
        if one.reason:
            print(f"warning: {one.origin}: {one.reason}", file=sys.stderr)
        made += one.clips
        passed += not one.clips and not one.reason
        if one.clips and made // EVERY != (made - one.clips) // EVERY:
            print(f"{made} clips", file=sys.stderr)
    if passed:
        print(f"{passed} were there already", file=sys.stderr)
    return made


def _removed(remove: Callable[[str], int], source: str) -> int:
    gone = remove(source)
    if not gone:
        print(f"warning: there is no clip {source}", file=sys.stderr)
    return gone
