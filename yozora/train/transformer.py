"""Training the diffusion transformer and the text encoder: rectified flow with a noise level per latent frame.

A share of the clips (`anchored`) has some frames held at a low noise level while the rest is noisy, as every way of
creating but the plain one will show them; the others have one level a clip.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yozora.clip import Clip
from yozora.diffusion import add_noise, flow_error, flow_loss, guided, sample, sample_levels, schedule
from yozora.diffusion.path import mean_error
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.packed import run_packed
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.config import FlowLessons, Lessons, TransformerStage
from yozora.train.data import LatentPool, stream
from yozora.train.flops import step_flops
from yozora.train.layout import LayoutHead, near_bodies, watched
from yozora.train.lessons import Captioned, Pack, PackedBatches, PoolBatches
from yozora.train.loop import fit
from yozora.train.settings import build

PROMPTS = (  # of the sample videos
    "a red ball bounces on the grass while the camera orbits",
    "a large blue box slides to the left on the sand",
    "a yellow cone spins on the snow at sunset",
    "a green metal torus rolls to the right in the studio",
)


def train_transformer(config: TransformerStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights of both networks."""
    return fit(TransformerTask(config), config.run, config.optim, resume)


class TransformerTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: TransformerStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        self.autoencoder = load_module(Autoencoder, config.autoencoder)
        transformer, text = begin(config, self.autoencoder.config.channels)
        self.model = nn.ModuleDict({"transformer": transformer, "text": text})
        if config.layout:
            self.model["layout"] = LayoutHead(transformer.config.width, transformer.config.patch)

    @cached_property
    def transformer(self) -> Transformer:
        """The one in `model`; with `compile`, its blocks become kernels of their own, which a copy made before (the
        average) knows nothing of."""
        transformer: Transformer = self.model["transformer"]  # type: ignore[assignment]
        return with_kernels(transformer) if self.config.compile else transformer

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and ".blocks." in name and not name.endswith("table")

    def rate(self, name: str) -> float:
        return self.config.text_rate if name.startswith("text.") else 1.0

    def batches(self, start: int) -> Iterator[Captioned | Pack]:
        run, patch = self.config.run, self.transformer.config.patch
        source = PackedBatches(self.config, patch) if self.config.packed else PoolBatches(self.config)
        return stream(source, start, run.steps, run.workers)

    def size(self, batch: Captioned | Pack) -> int:
        return len(batch.captions)

    def loss(self, batch: Captioned | Pack, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See `flow_lesson` and `packed_lesson`; with `layout`, a second task reads what stands where half way up."""
        device = next(self.model.parameters()).device
        states, mask = self.model["text"](batch.captions)
        work = self._work(batch, mask)
        if isinstance(batch, Pack):
            texts = [state[seen] for state, seen in zip(states, mask, strict=True)]
            loss, figures = packed_lesson(self.config, batch, device, generator, self.transformer, texts)
            return loss, figures | work
        transformer = self.transformer
        half_way = transformer.blocks[len(transformer.blocks) // 2 - 1]
        with watched(half_way) if self.config.layout else nullcontext([]) as middle:
            loss, figures = flow_lesson(
                self.config, batch, device, generator, lambda noisy, levels: transformer(noisy, levels, states, mask)
            )
        if self.config.layout and batch.layout is not None:
            head: LayoutHead = self.model["layout"]  # type: ignore[assignment]
            misread, figures["shapes_right"] = head.loss(middle[0], batch.layout.to(device))
            figures["layout"] = misread.item()
            loss = loss + self.config.layout * misread
        return loss, figures | work

    def _work(self, batch: Captioned | Pack, mask: Tensor) -> dict[str, float]:
        """Tokens and operations of a step: see `yozora.train.log`."""
        config = self.transformer.config
        lengths = [clip[0].numel() // config.patch_volume for clip in batch.latents]
        texts = mask.sum(1).tolist() if isinstance(batch, Pack) else [mask.shape[1]] * len(lengths)
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

        write_samples(draw, self.autoencoder.to(next(model.parameters()).device), self.config, step, folder)

    def export(self, model: nn.Module, folder: Path) -> None:
        networks: nn.ModuleDict = model  # type: ignore[assignment]
        save_module(networks["transformer"], folder / "transformer", torch.bfloat16)
        save_module(networks["text"], folder / "text_encoder", torch.bfloat16)


def flow_lesson(
    config: FlowLessons,
    batch: Captioned,
    device: torch.device,
    generator: torch.Generator,
    predict: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the velocity that `predict` says of noisy latents and their levels, over all frames that
    are not held clean; what is near a body counts more. And figures to log."""
    latents = batch.latents.to(device)
    levels = draw_levels(latents.shape[0], latents.shape[2], config, generator).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    velocity = predict(add_noise(latents, noise, levels), levels)
    weights = None
    if config.things and batch.layout is not None:
        weights = 1 + config.things * near_bodies(batch.layout.to(device))
    loss = flow_loss(velocity, latents, noise, levels[..., None, None], weights)
    with torch.no_grad():
        plain = levels.amin(1) == levels.amax(1)
        errors = mean_error(velocity, latents, noise)[plain].tolist()
    return loss, {"flow": loss.item()} | unanchored(levels[plain, 0].tolist(), errors)


def unanchored(levels: Sequence[float], errors: Sequence[float]) -> dict[str, float]:
    """Figures of clips in which nothing is held: their mean error, and that of each fifth of the noise levels."""
    if not errors:
        return {}
    figures = {"loss_unanchored": sum(errors) / len(errors)}
    for fifth in range(5):
        within = [error for level, error in zip(levels, errors, strict=True) if min(4, int(5 * level)) == fifth]
        if within:
            figures[f"level/{fifth / 5:.1f}-{(fifth + 1) / 5:.1f}"] = sum(within) / len(within)
    return figures


def packed_lesson(
    config: FlowLessons,
    batch: Pack,
    device: torch.device,
    generator: torch.Generator,
    transformer: Transformer,
    texts: Sequence[Tensor],
) -> tuple[Tensor, dict[str, float]]:
    """`flow_lesson` for clips of different sizes, each with the states of its own text [L, width]."""
    clips = [latents.to(device) for latents in batch.latents]
    levels = [draw_levels(1, len(clip[0]), config, generator)[0].to(device) for clip in clips]
    noises = [torch.randn(clip.shape, generator=generator).to(device) for clip in clips]
    noisy = [add_noise(x[None], n[None], at[None])[0] for x, n, at in zip(clips, noises, levels, strict=True)]
    total = count = torch.zeros((), device=device)
    plain: list[tuple[float, float]] = []
    said = run_packed(transformer, noisy, levels, texts)
    for number, (velocity, clip, noise, at) in enumerate(zip(said, clips, noises, levels, strict=True)):
        weights = None
        if config.things and batch.layouts is not None:
            weights = 1 + config.things * near_bodies(batch.layouts[number][None].to(device))
        error, asked = flow_error(velocity[None], clip[None], noise[None], at[None, :, None, None], weights)
        total, count = total + error, count + asked
        if at.min() == at.max():
            error = mean_error(velocity.detach()[None], clip[None], noise[None])
            plain.append((at[0].item(), error.item()))
    loss = total / count.clamp_min(1e-8)
    return loss, {"flow": loss.item()} | unanchored([at for at, _ in plain], [error for _, error in plain])


@torch.no_grad()
def write_samples(
    draw: Callable[[Tensor], Tensor],
    autoencoder: Autoencoder,
    config: Lessons,
    step: int,
    folder: Path,
    count: int = len(PROMPTS),
) -> None:
    """A video of each of `count` prompts, and one contact sheet; `draw` makes latents of noise, a clip for each."""
    buckets = config.buckets or LatentPool(config.pool).buckets()
    bucket = max(buckets, key=lambda b: b.weight)
    shape = (count, autoencoder.config.channels, 1 + (bucket.frames - 1) // 4, bucket.height // 16)
    noise = torch.randn(*shape, bucket.width // 16, generator=torch.Generator().manual_seed(0))
    latents = draw(noise.to(next(autoencoder.parameters()).device))
    frames = autoencoder.decode(latents).float().clamp(-1, 1)
    pixels = ((frames.cpu() + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, bucket.frames - 1, min(8, bucket.frames)).astype(int)
    sheet = np.concatenate([np.concatenate(list(clip[chosen]), axis=1) for clip in pixels])
    Clip(sheet[None], fps=1).write(folder / f"{step:07d}.png")
    for number, clip in enumerate(pixels):
        Clip(clip, fps=12).write(folder / f"{step:07d}-{number}.mp4")


def with_kernels(transformer: Transformer) -> Transformer:
    """The same network, each of its blocks compiled. Raises ConfigError where there is no compiler."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++")):
        raise ConfigError("compile needs a C++ compiler (g++ or clang++): install one, or set compile=false")
    for block in transformer.blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
    return transformer


def begin(config: TransformerStage, channels: int) -> tuple[Transformer, TextEncoder]:
    """The networks that training begins with: those of `start_from`, or a fresh transformer beside a text encoder that
    can read."""
    if config.start_from:
        transformer = grow(load_module(Transformer, config.start_from / "transformer"), config.model)
        return transformer, load_module(TextEncoder, config.start_from / "text_encoder")
    assert config.text_encoder is not None  # as the configuration has checked
    text = load_module(TextEncoder, config.text_encoder)
    given = {"channels": channels, "text_width": text.config.width}
    return Transformer(build(TransformerConfig, given | config.model)), text


def grow(transformer: Transformer, settings: dict[str, Any]) -> Transformer:
    """The same network in the sizes of `settings`, where that adds parts: more blocks, absolute positions, more and
    smaller patches.

    New parts start silent, so it answers as before; of smaller patches, each begins by what the whole one had learned
    of all its parts. Raises ConfigError where a part would change its size or go.
    """
    grown = Transformer(build(TransformerConfig, dataclasses.asdict(transformer.config) | settings))
    have, want = transformer.state_dict(), grown.state_dict()
    old, new = transformer.config.patch, grown.config.patch
    if old != new and all(size % part == 0 for size, part in zip(old, new, strict=True)):
        _split_patches(have, old, new)
    for name, tensor in have.items():
        if name not in want or want[name].shape != tensor.shape:
            raise ConfigError(f"start_from: the weights' {name} does not fit [model]; leave out what differs there")
    grown.load_state_dict(have, strict=False)
    return grown


def _split_patches(weights: dict[str, Tensor], old: tuple[int, int, int], new: tuple[int, int, int]) -> None:
    """Makes the embedding of patches, and the head, fit for patches that are parts of those they were made for: a part
    is seen as if the whole patch were like it, and of each the mean of what the parts would have had is said."""
    parts = [n for size, part in zip(old, new, strict=True) for n in (size // part, part)]  # how many, how large
    embedding = weights["patch.weight"].unflatten(1, (-1, *parts))
    weights["patch.weight"] = embedding.sum((2, 4, 6)).flatten(1)
    for name in ("head.out.weight", "head.out.bias"):
        weights[name] = weights[name].unflatten(0, (*parts, -1)).mean((0, 2, 4)).flatten(0, 3)


def draw_levels(batch: int, frames: int, config: FlowLessons, generator: torch.Generator) -> Tensor:
    """Noise levels `[B, T]` of the latent frames, by the sampler's rule level = min(t, 1 - h); a frame at level 0 is a
    prompt."""
    t = sample_levels(batch, generator, std=config.level_std, shift=config.shift)[:, None].expand(batch, frames)
    return torch.minimum(t, 1 - draw_hold(batch, frames, config.anchored, generator))


def draw_hold(batch: int, frames: int, anchored: float, generator: torch.Generator) -> Tensor:
    """How firmly (h, 0..1) each latent frame is held, `[B, T]`: 0 but in a share of the clips (`anchored`).

    Of the anchored clips, four in ten hold the first frame, the others a run of frames at either end or at both, or any
    set; four in five hold firmly (h = 1), the others at a random h.
    """
    if frames == 1:
        return torch.zeros(batch, 1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    index = torch.arange(frames)
    length = 1 + (uniform(batch, 1) * (frames - 1)).floor()  # 1 .. frames - 1
    left = 1 + (uniform(batch, 1) * (length - 1)).floor()  # of a length that both ends share
    first, start, end = index < 1, index < length, index >= frames - length
    both, some = (index < left) | (index >= frames - length + left), uniform(batch, frames) < 0.4
    held, kind = some, uniform(batch, 1)
    for until, chosen in ((0.85, both), (0.7, end), (0.6, start), (0.4, first)):
        held = torch.where(kind < until, chosen, held)
    hold = torch.where(uniform(batch, 1) < 0.8, 1.0, uniform(batch, 1))
    hold = hold * held * (uniform(batch, 1) < anchored)
    return torch.where(hold.amin(1, keepdim=True) == 1, 0.0, hold)  # all held: nothing would be left to learn
