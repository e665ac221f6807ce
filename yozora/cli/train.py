"""`yozora train`: one stage of training, from a TOML file, or fine-tuning on a folder of clips."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from yozora.errors import needing
from yozora.train import STAGES

train = typer.Typer(
    help="Train a model, stage by stage, or fine-tune one on your own clips. Interrupt it at any time; the same "
    "command goes on where it stopped.",
    no_args_is_help=True,
)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. run.steps=100.")
]
Resume = Annotated[bool, typer.Option(help="Go on from the last checkpoint, if there is one.")]
Clips = Annotated[
    Path, typer.Argument(help="A folder of clips with captions, or WebDataset shards.", show_default=False)
]
Model = Annotated[str, typer.Option(help="A shipped model's name or a folder.")]
Caption = Annotated[str, typer.Option(help="What is said of clips without a caption of their own.")]
Captioner = Annotated[
    str, typer.Option(metavar="NAME", help="Says what clips without a caption show: see yozora caption --captioner.")
]
Steps = Annotated[int | None, typer.Option(help="How long.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda …")]


LEARNING = "yozora.captions.learning"  # named, not imported: `yozora --help` needs no torch
EVERY = STAGES | {
    "weigher": (LEARNING, "train_weigher", "WeigherStage", "Whom of the two judges captions believe, and when."),
    "captioner": (LEARNING, "train_captioner", "CaptionerStage", "What the captioner reads with: all three."),
}


def _stage(name: str, about: str) -> Callable[[Path, list[str] | None, bool], None]:
    def command(
        config: Annotated[Path, typer.Argument(help="The TOML file that describes the run.", show_default=False)],
        overrides: Overrides = None,
        resume: Resume = True,
    ) -> None:
        with needing("training needs", "train,world"):
            from yozora.train import run

            made = run(name, config, overrides or [], resume, EVERY)
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, one speaks
            print(f"{name}: written to {made}")

    command.__doc__ = about
    return command


for _name, (*_, _about) in EVERY.items():
    train.command(_name)(_stage(_name, _about))


@train.command()
def lora(
    folder: Clips,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("lora.safetensors"),
    model: Model = "mini",
    rank: Annotated[int | None, typer.Option(help="How much it can learn: the rank of its changes.")] = None,
    caption: Caption = "",
    captioner: Captioner = "",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    overrides: Overrides = None,
    resume: Resume = True,
) -> None:
    """A small file that teaches a model what a folder of clips shows: use it with --lora."""
    settings = _said(caption, steps, seed, device) + ([] if rank is None else [f"model.rank={rank}"])
    with needing("training needs", "train,world"):
        from yozora.train.finetune import train_lora

        made = train_lora(folder, output, model, [*settings, *(overrides or [])], resume, _describing(captioner))
    asked = "" if model == "mini" else f" --model {model}"
    print(f'lora: written to {made}; try: yozora generate "…"{asked} --lora {made}')


@train.command()
def finetune(
    folder: Clips,
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder to write.")] = Path("finetuned"),
    model: Model = "mini",
    caption: Caption = "",
    captioner: Captioner = "",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    overrides: Overrides = None,
    resume: Resume = True,
) -> None:
    """All of a model's transformer goes on learning from a folder of clips: a new model folder."""
    with needing("training needs", "train,world"):
        from yozora.train.finetune import finetune as run

        settings = [*_said(caption, steps, seed, device), *(overrides or [])]
        made = run(folder, output, model, settings, resume, _describing(captioner))
    print(f'finetune: written to {made}; try: yozora generate "…" --model {made}')


def _describing(captioner: str) -> Callable[[Path, Path], None] | None:
    """What captions clips that have no caption, if that is asked for."""
    if not captioner:
        return None
    with needing("captions need", "evaluate"):
        from yozora.captions import load_captioner
        from yozora.captions.files import caption_silent

        chosen = load_captioner(captioner)

    def describe(folder: Path, output: Path) -> None:
        for done in caption_silent(folder, chosen, output):
            said = (
                f"warning: {done.name}: {done.reason}" if done.caption is None else f"{done.name}: {done.caption.short}"
            )
            print(said, file=sys.stderr if done.caption is None else sys.stdout, flush=True)

    return describe


def _said(caption: str, steps: int | None, seed: int, device: str) -> list[str]:
    """The options as settings."""
    settings = [f"run.seed={seed}", f"run.device={_quoted(device)}", f"footage.caption={_quoted(caption)}"]
    return settings + ([] if steps is None else [f"run.steps={steps}"])


def _quoted(text: str) -> str:
    """A string of TOML."""
    return json.dumps(text, ensure_ascii=False)
