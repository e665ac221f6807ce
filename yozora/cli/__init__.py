"""The command line: one verb a way. Thin: it reads arguments, calls the rooms below and prints.

Anything a user did wrong is one line on stderr and exit code 2; Ctrl-C is KeyboardInterrupt, which `yozora.__main__`
turns into 130. Nothing heavy is imported before a command needs it, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from yozora import __version__
from yozora.cli.caption import caption
from yozora.cli.compose import again, blend, fill, storyboard
from yozora.cli.doctor import doctor
from yozora.cli.edit import extend, inpaint, loop, recut, remix
from yozora.cli.enhance import enhance
from yozora.cli.evaluate import evaluate
from yozora.cli.generate import animate, generate, image
from yozora.cli.library import library
from yozora.cli.models import models
from yozora.cli.presets import presets
from yozora.cli.rewrite import rewrite
from yozora.cli.serve import keys, serve, worker
from yozora.cli.train import train
from yozora.cli.world import world
from yozora.errors import YozoraError, YozoraWarning

__all__ = ["app", "main"]

INTERRUPTED = 130  # typer turns Ctrl-C into this exit code

app = typer.Typer(
    name="yozora",
    help="Video from text and pictures, with a diffusion transformer over spacetime patches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for way in (generate, image, animate, extend, fill, loop, blend, remix, recut, inpaint, storyboard, again):
    app.command()(way)
app.command()(enhance)
app.command()(rewrite)
app.command()(caption)
app.add_typer(library, name="library")
app.add_typer(models, name="models")
app.add_typer(presets, name="presets")
app.add_typer(world, name="world")
app.add_typer(train, name="train")
app.command()(evaluate)
app.command()(serve)
app.command()(worker)
app.add_typer(keys, name="keys")
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"yozora {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Video from text and pictures, with a diffusion transformer over spacetime patches."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line on `arguments` (None: those of the process) and returns the exit code. Raises
    KeyboardInterrupt."""
    try:
        with _plain_warnings():
            code = app(arguments, prog_name="yozora", standalone_mode=False) or 0
        sys.stdout.flush()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except (YozoraError, typer.TyperException) as error:
        return _fail(error.format_message() if isinstance(error, typer.TyperException) else str(error), 2)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        # whoever read our output has gone; Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Yozora's own warnings are a line each, once; Python would name the line of code that found it."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", YozoraWarning)
        show, said = warnings.showwarning, set[str]()

        def line(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, YozoraWarning):
                show(message, category, *place)
            elif str(message) not in said:
                said.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = line
        yield


def _fail(message: str, code: int) -> int:
    if message and _speaks(message):  # none where the help was printed instead
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _speaks(message: str) -> bool:
    """Whether this process is to say what is wrong: of those that torchrun starts, the first that gets to it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from yozora.train.mesh import says_first

    return says_first(message)
