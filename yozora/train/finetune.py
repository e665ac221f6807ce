"""Fine-tuning on one's own clips, in one command: a LoRA, or the whole transformer.

The clips are cut and encoded once, into a pool beside what is made; then the transformer learns from it as it did from
the pools that it was trained with.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yozora.diffusion import FLOW_MAP, guided, sample, schedule
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, read_config, read_json, weights_digest, write_json
from yozora.models.lora import Lora, LoraConfig
from yozora.models.registry import CARD, ModelInfo, find_model, read_card
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.bundle import make_bundle
from yozora.train.config import BundleStage, Finetune, Job, LatentsStage, LoraStage, TransformerStage
from yozora.train.data import LatentPool, stream
from yozora.train.flow import flow_lesson
from yozora.train.latents import build_pool
from yozora.train.lessons import Captioned, PoolBatches
from yozora.train.loop import fit, pick_device
from yozora.train.mesh import refuse_several
from yozora.train.settings import build, check_config
from yozora.train.transformer import train_transformer, write_samples

LORA_FILE = "lora.safetensors"  # in the run's folder, whether it is done or was stopped
SHOWN = 4  # captions that sample videos are made of
LORA = {"run": {"steps": 400, "sample_every": 100}, "optim": {"adamw": 1e-3, "warmup": 20, "decay": 0.7, "ema": 0.98}}
FULL = {"run": {"steps": 400, "sample_every": 100}, "optim": {"adamw": 1e-4, "warmup": 20, "decay": 0.7, "ema": 0.98}}


def train_lora(
    folder: Path, output: Path, model: str = "mini", settings: Sequence[str] = (), resume: bool = True
) -> Path:
    """A LoRA of `model` from the clips in a folder (see `yozora.train.footage`), written to the file `output`; what it
    is made with lies in OUTPUT.run. `settings` are overrides of Finetune, `section.key=value`. Raises ConfigError,
    ModelError, KeyboardInterrupt."""
    base, card = _base(model)
    config = _read(folder, output, card, LORA, settings)
    if config.compile:
        raise ConfigError("compile is for `yozora train finetune`: a LoRA is trained beside the blocks as they are")
    build(LoraConfig, config.model)
    pool = _pool(config, base, resume)
    _claim(config, base, resume)
    stage = LoraStage(start_from=base, name=card.name, model=config.model, **_lessons(config, base, card, pool))
    made = fit(LoraTask(stage), stage.run, stage.optim, resume) / LORA_FILE
    try:
        shutil.copyfile(made, partial := output.with_name(f"{output.name}.part"))
        os.replace(partial, output)
    except OSError as error:
        raise ConfigError(f"cannot write {output} ({error.strerror}); the LoRA is in {made}") from None
    return output


def finetune(
    folder: Path, output: Path, model: str = "mini", settings: Sequence[str] = (), resume: bool = True
) -> Path:
    """As `train_lora`, but all weights learn and the folder `output` becomes a model of its own, in place of one that
    was there. It has no few-step weights: those of its base lead where that one led."""
    base, card = _base(model)
    config = _read(folder, output, card, FULL, settings)
    build(TransformerConfig, dataclasses.asdict(read_config(Transformer, base / "transformer")) | config.model)
    pool = _pool(config, base, resume)
    _claim(config, base, resume)
    lessons = _lessons(config, base, card, pool)
    stage = TransformerStage(start_from=base, text_rate=0.0, model=config.model, **lessons)
    trained = train_transformer(stage, resume)
    said = dataclasses.asdict(card) | {"name": output.name, "few_steps": None}
    if card.solver == FLOW_MAP:
        del said["solver"]  # the one that a card has without saying so is for full weights
    made = make_bundle(
        BundleStage(out=config.run.out / "model", transformer=trained, autoencoder=base / "autoencoder", card=said)
    )
    if card.few_steps:
        print(f"{output.name} has no few-step weights: those of {card.name} are for its own; see yozora train distill")
    return _put(made, output)


def _put(made: Path, output: Path) -> Path:
    """Moves a finished model to its place, where another may be. Raises ConfigError where that cannot be."""
    try:
        with tempfile.TemporaryDirectory(prefix=".replaced-", dir=output.parent) as before:
            if output.exists():
                os.replace(output, Path(before) / "model")
            os.replace(made, output)
    except OSError as error:
        raise ConfigError(f"cannot write {output} ({error.strerror}); the model is in {made}") from None
    return output


def _claim(config: Finetune, base: Path, resume: bool) -> None:
    """A run's checkpoint belongs to one model's weights. Raises ConfigError where it belongs to another's."""
    note, asked = config.run.out / "base.json", {"transformer_sha256": weights_digest(base / "transformer")}
    if resume and note.exists() and read_json(note) != asked:
        raise ConfigError(f"{config.run.out} holds a run on another model; use --no-resume or another name with -o")
    write_json(note, asked)


def _base(model: str) -> tuple[Path, ModelInfo]:
    refuse_several("fine-tuning")
    folder = find_model(model)
    return folder, read_card(folder)


def _read(
    folder: Path, output: Path, card: ModelInfo, defaults: dict[str, dict[str, Any]], settings: Sequence[str]
) -> Finetune:
    """The settings: those of the model, else `defaults`, unless told."""
    if not output.name or (output.is_dir() and defaults is LORA) or (output.is_file() and defaults is FULL):
        raise ConfigError(f"{output} cannot be written: name a {'file' if defaults is LORA else 'folder'} with -o")
    if output.is_dir() and any(output.iterdir()) and not (output / CARD).exists():
        raise ConfigError(f"{output} holds something that is no model: name another folder with -o")
    raw: dict[str, Any] = {name: dict(section) for name, section in defaults.items()}
    raw["run"]["out"] = str(output.with_name(f"{output.name}.run"))
    raw["footage"] = {"path": str(folder), "frames": card.frames_max, "fps": card.fps, "sizes": card.sizes}
    return check_config(Finetune, raw, f"fine-tuning on {folder}", settings)


def _pool(config: Finetune, base: Path, resume: bool) -> LatentPool:
    run = config.run
    job = Job(out=run.out / "latents", seed=run.seed, device=run.device, precision=run.precision, workers=run.workers)
    stage = LatentsStage(run=job, autoencoder=base / "autoencoder", footage=config.footage)
    return LatentPool(build_pool(stage, resume))


def _lessons(config: Finetune, base: Path, card: ModelInfo, pool: LatentPool) -> dict[str, Any]:
    """What LoraStage and TransformerStage share: a bucket for each size and length in the pool, drawn as often as there
    are clips of it."""
    buckets = tuple(bucket.model_copy(update={"batch": config.batch}) for bucket in pool.buckets())
    kept = {name: getattr(config, name) for name in ("drop_prompt", "anchored", "level_std", "compile", "optim")}
    run = config.run.model_copy(update={"out": config.run.out / "training"})
    return kept | {
        "run": run,
        "pool": pool.folder,
        "autoencoder": base / "autoencoder",
        "buckets": buckets,
        "shift": card.shift,
    }


class LoraTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: LoraStage) -> None:
        self.config = config
        torch.manual_seed(config.run.seed)
        device = pick_device(config.run.device)
        self.device = device
        self.autoencoder = load_module(Autoencoder, config.autoencoder, device)
        self.text = load_module(TextEncoder, config.start_from / "text_encoder", device)
        self.base = load_module(Transformer, config.start_from / "transformer", device).requires_grad_(False)
        self.lora = Lora(build(LoraConfig, config.model), self.base)
        self.source = PoolBatches(config)

    @property
    def model(self) -> nn.Module:
        return self.lora

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return False

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Captioned]:
        return stream(self.source, start, self.config.run.steps, self.config.run.workers)

    def size(self, batch: Captioned) -> int:
        return len(batch.captions)

    def loss(self, batch: Captioned, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See `flow_lesson`."""
        with torch.no_grad():
            states, mask = self.text(batch.captions)
        with self.lora.attached(self.base):
            return flow_lesson(
                self.config, batch, self.device, generator, lambda noisy, at: self.base(noisy, at, states, mask)
            )

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """Videos of the footage's own captions."""
        assert isinstance(model, Lora)
        captions = list(dict.fromkeys(said[0] for said in self.source.pool.captions()))[:SHOWN]
        with torch.no_grad(), model.attached(self.base):
            velocity = guided(self.base, self.text(captions), self.text([""]), 2.5)

            def draw(noise: Tensor) -> Tensor:
                *_, last = sample(velocity, noise, schedule(16, self.config.shift))
                return last.latents

            write_samples(draw, self.autoencoder, self.config, step, folder, len(captions))

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Lora)
        model.save(folder / LORA_FILE, self.config.name)
