"""`yozora models`: what can be run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

models = typer.Typer(help="The models that can be run.", no_args_is_help=True)


@models.callback()
def _models() -> None:
    """The models that can be run."""


@models.command()
def merge(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a folder.", show_default=False)],
    lora: Annotated[list[str], typer.Option(metavar="FILE[:SCALE]", help="A LoRA; several add up.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("merged"),
) -> None:
    """Add LoRAs to a model's weights for good: a new model folder."""
    from yozora.models.lora import parse_lora
    from yozora.models.registry import merge_loras

    merge_loras(model, [parse_lora(text) for text in lora], output)
    print(f"{output}: {model} with {', '.join(lora)}")


@models.command()
def fetch(
    name: Annotated[str, typer.Argument(help="ORGANISATION/NAME on the Hugging Face hub.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="A commit, branch or tag; else the newest.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A folder for it of your own.")] = None,
) -> None:
    """Fetch open weights; run again, it goes on where it stopped. --model NAME then finds them."""
    from yozora.models.fetch import fetch_model
    from yozora.models.registry import read_parts

    folder = fetch_model(name, revision, output, say=lambda line: print(line, file=sys.stderr))
    card, *_ = read_parts(folder)
    print(f"{folder}: {card.name}, {card.description}")


@models.command()
def check(
    model: Annotated[str, typer.Argument(help="A fetched model's name, or a folder.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="What the hub calls it, where it was not fetched here.")] = None,
) -> None:
    """Hash every file of open weights again, and compare with what the hub said, or says."""
    from yozora.models.fetch import check_model
    from yozora.models.registry import find_model

    print(check_model(find_model(model), name, say=lambda line: print(line, file=sys.stderr)))


@models.command("list")
def list_() -> None:
    """List the shipped models."""
    from yozora.models.registry import list_models

    found = list_models()
    if not found:
        print("no model is shipped with this installation")
    for card in found:
        sizes = ", ".join(f"{width}x{height}" for width, height in card.sizes)
        length = (
            f"{card.frames_min / card.fps:.2g} to {card.frames_max / card.fps:.3g} s at {card.fps:g} frames a second"
        )
        steps = f"{card.steps} steps, guidance {card.guidance:g}" + (" (projected)" if card.projected else "")
        if card.few_steps:
            steps += f", or {card.few_steps} steps by --solver flow-map"
        print(f"{card.name}: {card.description}\n    {sizes}; {length}; {steps}")
