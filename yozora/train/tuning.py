"""What fine-tuning trains: a LoRA beside a frozen transformer, or all of an open model's own. (All of one of Yozora's
learns as in `yozora.train.transformer`, together with its text encoder.)

The lessons are the same: rectified flow on latents of footage. An open model is told noise levels as it was trained
(thousandths of the way to noise), and reads captions that its text encoder has written down before.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from yozora.diffusion import guided, in_whole_levels, sample, schedule
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import write_json
from yozora.models.lora import Lora, LoraConfig
from yozora.models.registry import CARD, load_autoencoder
from yozora.models.transformer import Transformer
from yozora.models.wan import read_wan_config, save_wan_transformer
from yozora.models.wan_autoencoder import WanAutoencoder
from yozora.models.wan_lora import save_wan_lora
from yozora.train.base import Base, find_base
from yozora.train.data import stream
from yozora.train.finetune_config import LoraStage, TuneStage
from yozora.train.flops import step_flops
from yozora.train.flow import flow_lesson
from yozora.train.lessons import Captioned, PoolBatches
from yozora.train.loop import pick_device, runs_in_half
from yozora.train.parallel import with_checkpointing
from yozora.train.settings import build
from yozora.train.transformer import buckets_of, most_drawn, write_samples

LORA_FILE = "lora.safetensors"  # in the run's folder, whether it is done or was stopped
TRANSFORMER = "diffusion_pytorch_model.safetensors"
SHOWN = 4  # captions that sample videos are made of


class Tuning:
    """What both have in common: see `yozora.train.loop.Task`. `work`: the part of a step's operations that it takes."""

    work = 1.0

    def __init__(self, config: TuneStage) -> None:
        self.config = config
        torch.manual_seed(config.run.seed)
        self.device = pick_device(config.run.device)
        self.base = find_base(config.start_from)
        self.read = self.base.reader(config.states, self.device)
        self.source = PoolBatches(config)

    @property
    def transformer(self) -> Transformer:
        """The one that learns, or that a LoRA is beside."""
        raise NotImplementedError

    @cached_property
    def autoencoder(self) -> Autoencoder | WanAutoencoder:
        """Loaded only where sample videos are asked for."""
        return load_autoencoder(self.config.autoencoder, self.device)

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
            states, mask = self.read(batch.captions)

        def predict(noisy: Tensor, levels: Tensor) -> Tensor:
            return self.transformer(noisy, self.base.shown(levels), states, mask)

        loss, figures = flow_lesson(self.config, batch, self.device, generator, predict)
        config, count = self.transformer.config, len(batch.latents)
        tokens = batch.latents[0, 0].numel() // config.patch_volume
        flops = self.work * step_flops(config, [tokens] * count, [states.shape[1]] * count)
        return loss, figures | {"tokens": float(tokens * count), "flops": flops}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """Videos of the footage's own captions, one after the other, for the sake of memory."""
        card = self.base.card
        captions = list(dict.fromkeys(said[0] for said in self.source.pool.captions()))[:SHOWN]

        def draw(noise: Tensor) -> Tensor:
            made = []
            for caption, each in zip(captions, noise.split(1), strict=True):
                velocity = guided(
                    transformer, self.read([caption]), self.read([""]), card.guidance, projected=card.projected
                )
                if card.whole_levels is not None:
                    velocity = in_whole_levels(velocity, card.whole_levels)
                *_, last = sample(velocity, each, schedule(16, self.config.shift))
                made.append(last.latents)
            return torch.cat(made)

        with torch.no_grad(), self.running(model) as transformer:
            write_samples(
                draw, self.autoencoder, most_drawn(buckets_of(self.config)), step, folder, len(captions), card.fps
            )

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[Transformer]:
        """The transformer that `model`, an average of what learns, makes."""
        raise NotImplementedError
        yield


class LoraTask(Tuning):
    """A LoRA beside a frozen transformer, in bfloat16 where the device multiplies in it."""

    work = 2 / 3  # frozen matrices need no gradients of their own

    def __init__(self, config: LoraStage) -> None:
        super().__init__(config)
        half = runs_in_half(self.device, config.run.precision)
        self._transformer = self.base.load(self.device, torch.bfloat16 if half else torch.float32).requires_grad_(False)
        self.lora = Lora(build(LoraConfig, config.model), self._transformer)
        with_checkpointing(self._transformer, config.checkpointing)
        self.beside = ExitStack()  # for as long as it learns: blocks may be worked out again in the backward pass
        self.beside.enter_context(self.lora.attached(self._transformer))

    @property
    def transformer(self) -> Transformer:
        return self._transformer

    @property
    def model(self) -> nn.Module:
        return self.lora

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[Transformer]:
        assert isinstance(model, Lora)
        self.beside.close()
        with model.attached(self._transformer):
            yield self._transformer
        self.beside.enter_context(self.lora.attached(self._transformer))

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Lora)
        if self.base.wan:
            save_wan_lora(model, self.base.transformer, folder / LORA_FILE, self.config.name)
        else:
            model.save(folder / LORA_FILE, self.config.name)


class OpenTask(Tuning):
    """All weights of an open model's transformer, in float32."""

    def __init__(self, config: TuneStage) -> None:
        super().__init__(config)
        self.model = self.base.load(self.device).requires_grad_(True)

    @cached_property
    def transformer(self) -> Transformer:
        """As it is to be run; a copy made before (the average) is as it was."""
        return with_checkpointing(self.model, self.config.checkpointing)

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[Transformer]:
        assert isinstance(model, Transformer)
        yield model

    def export(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Transformer)
        _, layout = read_wan_config(self.base.weights)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{TRANSFORMER}.part"
        save_wan_transformer(model, partial, layout)
        os.replace(partial, folder / TRANSFORMER)


def make_open_folder(base: Base, trained: Path, output: Path) -> Path:
    """A model folder as that of an open `base`, with the transformer that OpenTask has exported to `trained`, and
    called as the folder `output` will be, beside which it is made. Files that are the same are links to those of the
    base where the disk allows. Returns where it is. Raises OSError."""
    made = output.with_name(f".{output.name}.new")
    shutil.rmtree(made, ignore_errors=True)

    def left_out(folder: str, names: list[str]) -> list[str]:
        own = Path(folder) == base.weights
        return [name for name in names if name.startswith(".") or (own and name.startswith("diffusion_pytorch_model"))]

    shutil.copytree(base.folder, made, ignore=left_out, copy_function=_link_or_copy)
    place = made / base.weights.relative_to(base.folder)
    _link_or_copy(str(trained / TRANSFORMER), str(place / TRANSFORMER))
    (made / CARD).unlink(missing_ok=True)  # which may be a link
    write_json(made / CARD, dataclasses.asdict(base.card) | {"name": output.name})
    return made


def _link_or_copy(source: str, target: str) -> str:
    """A second name for a file where the disk allows, else a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target
