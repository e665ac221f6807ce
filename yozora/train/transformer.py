"""Training the diffusion transformer and the text encoder, by one process or by several: what is learned is in
`yozora.train.flow`, how it is shared in `yozora.train.parallel`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yozora.clip import Clip
from yozora.diffusion import guided, sample, schedule
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.packed import run_packed
from yozora.models.presets import PRESETS
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan_autoencoder import WanAutoencoder
from yozora.train.config import Bucket, Lessons, TransformerStage
from yozora.train.context import run_shared
from yozora.train.data import LatentPool, stream
from yozora.train.flops import step_flops
from yozora.train.flow import Asked, ask, flow_lesson, judge
from yozora.train.layout import LayoutHead, watched
from yozora.train.lessons import Captioned, Pack, PackedBatches, PoolBatches
from yozora.train.loop import fit, pick_device, runs_in_half
from yozora.train.mesh import ALONE, Mesh, meet
from yozora.train.parallel import Networks, shard, shard_stored, with_checkpointing, with_float8, with_kernels
from yozora.train.resumed import Said, settings_of
from yozora.train.settings import build

PROMPTS = (  # of the sample videos
    "a red ball bounces on the grass while the camera orbits",
    "a large blue box slides to the left on the sand",
    "a yellow cone spins on the snow at sunset",
    "a green metal torus rolls to the right in the studio",
)


def train_transformer(config: TransformerStage, resume: bool = True, settings: Said | None = None) -> Path:
    """Runs the stage, with the other processes that were started with this one; returns the folder with the averaged
    weights of both networks. `settings`: see `fit`; None: the stage's."""
    said = settings_of(config) if settings is None else settings
    with meet(config.parallel.context, config.run.device) as mesh:
        return fit(TransformerTask(config, mesh), config.run, config.optim, resume, mesh, said)


class TransformerTask:
    """See `yozora.train.loop.SharedTask`."""

    def __init__(self, config: TransformerStage, mesh: Mesh = ALONE):
        self.config, self.mesh = config, mesh
        torch.manual_seed(config.run.seed)  # the same weights on every process
        self.autoencoder = load_module(Autoencoder, config.autoencoder)
        transformer, text = begin(config, self.autoencoder.config.channels)
        self.model = Networks({"transformer": transformer, "text": text})
        if config.layout:
            self.model["layout"] = LayoutHead(transformer.config.width, transformer.config.patch)

    @cached_property
    def transformer(self) -> Transformer:
        """The one in `model`, as it is to be run; a copy made before (the average) is as it was."""
        transformer: Transformer = self.model["transformer"]  # type: ignore[assignment]
        if self.config.parallel.float8:
            transformer = with_float8(transformer, pick_device(self.config.run.device))
        transformer = with_checkpointing(transformer, self.config.parallel.checkpointing)
        return with_kernels(transformer) if self.config.compile else transformer

    def shard(self, average: nn.Module) -> None:
        assert self.transformer is self.model["transformer"]  # which is made ready before it is divided
        run = self.config.run
        shard(self.model, self.mesh, runs_in_half(pick_device(run.device), run.precision))
        shard_stored(average, self.mesh)

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and ".blocks." in name and not name.endswith("table")

    def rate(self, name: str) -> float:
        return self.config.text_rate if name.startswith("text.") else 1.0

    def batches(self, start: int) -> Iterator[Captioned | list[Pack]]:
        config, share = self.config, (self.mesh.shard, self.mesh.shards)
        if config.packed:
            source = PackedBatches(config, *share, patch=self.transformer.config.patch, packs=config.packs)
        else:
            source = PoolBatches(config, *share)
        return stream(source, start, config.run.steps, config.run.workers)

    def size(self, batch: Captioned | list[Pack]) -> int:
        return len(batch.captions) if isinstance(batch, Captioned) else sum(len(pack.captions) for pack in batch)

    def parts(self, batch: Captioned | list[Pack], generator: torch.Generator) -> list[Captioned] | list[Asked]:
        """A batch of one size in one go, packs one after the other. Processes that share tokens pack any batch."""
        if isinstance(batch, Captioned) and self.mesh.context == 1:
            return [batch]
        device = next(self.model.parameters()).device
        return ask(self.config, batch, device, generator, self.mesh)

    def loss(self, batch: Captioned | Asked, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See `flow_lesson` and `judge`; with `layout`, a second task reads what stands where half way up."""
        return self.model(self._batch_loss if isinstance(batch, Captioned) else self._pack_loss, batch, generator)

    def _pack_loss(self, asked: Asked, _generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        states, mask = self.model["text"](asked.captions)
        texts = [state[seen] for state, seen in zip(states, mask, strict=True)]
        given = self.transformer, asked.noisy, asked.levels, texts
        said = run_packed(*given) if self.mesh.context == 1 else run_shared(*given, self.mesh)
        loss, figures = judge(asked, said)
        return loss, figures | self._work(asked.latents, mask.sum(1).tolist())

    def _batch_loss(self, batch: Captioned, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        states, mask = self.model["text"](batch.captions)
        transformer = self.transformer
        half_way = transformer.blocks[len(transformer.blocks) // 2 - 1]

        def predict(noisy: Tensor, levels: Tensor) -> Tensor:
            return transformer(noisy, levels, states, mask)

        with watched(half_way) if self.config.layout else nullcontext([]) as middle:
            loss, figures = flow_lesson(self.config, batch, device, generator, predict, self.mesh)
        if self.config.layout and batch.layout is not None:
            head: LayoutHead = self.model["layout"]  # type: ignore[assignment]
            misread, figures["shapes_right"] = head.loss(middle[0], batch.layout.to(device))
            misread = misread * (len(batch.latents) / (batch.whole or len(batch.latents)))
            figures["layout"] = misread.item()
            loss = loss + self.config.layout * misread
        return loss, figures | self._work(batch.latents, [mask.shape[1]] * len(batch.latents))

    def _work(self, clips: Sequence[Tensor] | Tensor, texts: Sequence[int]) -> dict[str, float]:
        """Tokens and operations of a step: see `yozora.train.log`."""
        config = self.transformer.config
        lengths = [clip[0].numel() // config.patch_volume for clip in clips]
        return {"tokens": float(sum(lengths)), "flops": step_flops(config, lengths, texts)}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """The sample prompts at 20 steps with guidance 4: a video each, and one contact sheet."""
        networks: nn.ModuleDict = model  # type: ignore[assignment]
        with torch.no_grad():
            text, null = networks["text"](list(PROMPTS)), networks["text"]([""])
            velocity = guided(networks["transformer"], text, null, 4.0)  # type: ignore[arg-type]

        def draw(noise: Tensor) -> Tensor:
            *_, last = sample(velocity, noise, schedule(20, self.config.shift))
            return last.latents

        autoencoder = self.autoencoder.to(next(model.parameters()).device)
        write_samples(draw, autoencoder, most_drawn(buckets_of(self.config)), step, folder)

    def export(self, model: nn.Module, folder: Path) -> None:
        networks: nn.ModuleDict = model  # type: ignore[assignment]
        save_module(networks["transformer"], folder / "transformer", torch.bfloat16)
        save_module(networks["text"], folder / "text_encoder", torch.bfloat16)


def most_drawn(buckets: Sequence[Bucket]) -> Bucket:
    """The size and length of clip that is drawn most often."""
    return max(buckets, key=lambda bucket: bucket.weight)


def buckets_of(config: Lessons) -> Sequence[Bucket]:
    """The sizes and lengths that are learned from."""
    return config.buckets or LatentPool(config.pool).buckets()


@torch.no_grad()
def write_samples(
    draw: Callable[[Tensor], Tensor],
    autoencoder: Autoencoder | WanAutoencoder,
    bucket: Bucket,
    step: int,
    folder: Path,
    count: int = len(PROMPTS),
    fps: float = 12.0,
) -> None:
    """A video of each of `count` prompts in the bucket's size, and one contact sheet; `draw` makes latents of noise, a
    clip for each."""
    sizes = autoencoder.config
    shape = (count, sizes.channels, 1 + (bucket.frames - 1) // sizes.temporal, bucket.height // sizes.spatial)
    noise = torch.randn(*shape, bucket.width // sizes.spatial, generator=torch.Generator().manual_seed(0))
    device = next(autoencoder.parameters()).device
    latents = draw(noise.to(device))
    with torch.autocast(device.type, enabled=False) if isinstance(autoencoder, WanAutoencoder) else nullcontext():
        frames = autoencoder.decode(latents).float().clamp(-1, 1)
    pixels = ((frames.cpu() + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, bucket.frames - 1, min(8, bucket.frames)).astype(int)
    sheet = np.concatenate([np.concatenate(list(clip[chosen]), axis=1) for clip in pixels])
    Clip(sheet[None], fps=1).write(folder / f"{step:07d}.png")
    for number, clip in enumerate(pixels):
        Clip(clip, fps=fps).write(folder / f"{step:07d}-{number}.mp4")


def begin(config: TransformerStage, channels: int) -> tuple[Transformer, TextEncoder]:
    """The networks that training begins with: those of `start_from`, or a fresh transformer beside a text encoder that
    can read."""
    if config.start_from:
        transformer = grow(load_module(Transformer, config.start_from / "transformer"), config.model)
        return transformer, load_module(TextEncoder, config.start_from / "text_encoder")
    assert config.text_encoder is not None  # as the configuration has checked
    text = load_module(TextEncoder, config.text_encoder)
    settings = dict(config.model)
    preset = _preset(settings.pop("preset", None))
    given = {"channels": channels, "text_width": text.config.width}
    return Transformer(build(TransformerConfig, preset | given | settings)), text


def _preset(name: str | None) -> dict[str, Any]:
    """The settings that a preset stands for. Raises ConfigError."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(f"model.preset: there is no {name!r}; known: {', '.join(PRESETS)}")
    return dataclasses.asdict(PRESETS[name])


def grow(transformer: Transformer, settings: dict[str, Any]) -> Transformer:
    """The same network in the sizes of `settings`, where that adds parts: more blocks, absolute positions, more and
    smaller patches.

    New parts start silent, so it answers as before; of smaller patches, each begins by what the whole one had learned
    of all its parts. Raises ConfigError where a part would change its size or go, or the same parts would answer
    otherwise.
    """
    grown = Transformer(build(TransformerConfig, dataclasses.asdict(transformer.config) | settings))
    _refuse_other(transformer.config, grown.config)
    have, want = transformer.state_dict(), grown.state_dict()
    old, new = transformer.config.patch, grown.config.patch
    if old != new and all(size % part == 0 for size, part in zip(old, new, strict=True)):
        _split_patches(have, old, new)
    for name, tensor in have.items():
        if name not in want or want[name].shape != tensor.shape:
            raise ConfigError(f"start_from: the weights' {name} does not fit [model]; leave out what differs there")
    grown.load_state_dict(have, strict=False)
    return grown


def _refuse_other(before: TransformerConfig, now: TransformerConfig) -> None:
    """Raises ConfigError for what no tensor's shape shows, and what yet makes another network of the same weights:
    positions may move nearer only together with smaller patches."""
    kept = ("heads", "eps", "cross_norm", *(["spacing"] if before.patch == now.patch else []))
    for name in kept:
        if (one := getattr(before, name)) != (other := getattr(now, name)):
            raise ConfigError(f"model.{name}: the weights that it starts from were made for {one}, not {other}")


def _split_patches(weights: dict[str, Tensor], old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    """Makes the embedding of patches, and the head, fit for patches that are parts of those they were made for: a part
    is seen as if the whole patch were like it, and of each the mean of what the parts would have had is said."""
    parts = [n for size, part in zip(old, new, strict=True) for n in (size // part, part)]  # how many, how large
    embedding = weights["patch.weight"].unflatten(1, (-1, *parts))
    weights["patch.weight"] = embedding.sum((2, 4, 6)).flatten(1)
    for name in ("head.out.weight", "head.out.bias"):
        weights[name] = weights[name].unflatten(0, (*parts, -1)).mean((0, 2, 4)).flatten(0, 3)
