"""`yozora train`: one stage of training, from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yozora.errors import YozoraError
from yozora.train import STAGES


def train(
    stage: Annotated[str, typer.Argument(help=f"One of: {', '.join(STAGES)}.")],
    config: Annotated[Path, typer.Argument(help="The TOML file that describes the run.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. run.steps=100.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint, if there is one.")] = True,
) -> None:
    """Train one stage of a model. Interrupt it at any time; the same command goes on where it stopped."""
    try:
        from yozora.train import run
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("yozora"):
            raise
        raise YozoraError(f"training needs {error.name}: pip install 'yozora[train,world]'") from None
    print(f"{stage}: written to {run(stage, config, overrides or [], resume)}")
