"""What the transformer is asked in a step, and how its answer is judged: rectified flow with a noise level per latent
frame.

A share of the clips (`anchored`) has some frames held at a low noise level while the rest is noisy, as every way of
creating but the plain one will show them; the others have one level a clip. Where processes share a step, its noise is
that of the whole step, and each one's loss is its part of the mean over the whole: the parts' sum is the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yozora.diffusion import add_noise, flow_count, flow_error, sample_levels
from yozora.diffusion.path import mean_error
from yozora.train.config import FlowLessons
from yozora.train.layout import near_bodies
from yozora.train.lessons import Captioned, Pack
from yozora.train.mesh import ALONE, Mesh

APART = 0x9E3779B97F4A7C15  # seeds of a step's packs are so far from one another


def flow_lesson(
    config: FlowLessons,
    batch: Captioned,
    device: torch.device,
    generator: torch.Generator,
    predict: Callable[[Tensor, Tensor], Tensor],
    mesh: Mesh = ALONE,
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of the velocity that `predict` says of noisy latents and their levels, over all frames that
    are not held clean; what is near a body counts more. And figures to log."""
    latents = batch.latents.to(device)
    levels, noise = (drawn.to(device) for drawn in _draw(config, batch, generator))
    velocity = predict(add_noise(latents, noise, levels), levels)
    weights = None
    if config.things and batch.layout is not None:
        weights = 1 + config.things * near_bodies(batch.layout.to(device))
    error, count = flow_error(velocity, latents, noise, levels[..., None, None], weights)
    loss = error / mesh.over_shards(count).clamp_min(1e-8)
    with torch.no_grad():
        plain = levels.amin(1) == levels.amax(1)
        errors = mean_error(velocity, latents, noise)[plain].tolist()
    return loss, {"flow": loss.item()} | unanchored(levels[plain, 0].tolist(), errors)


def _draw(config: FlowLessons, batch: Captioned, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise levels [B, T] and noise [B, C, T, H, W] of a batch, drawn for the whole that it may be a share of."""
    whole = batch.whole or len(batch.latents)
    own = slice(batch.first, batch.first + len(batch.latents))
    levels = draw_levels(whole, batch.latents.shape[2], config, generator)
    return levels[own], torch.randn(whole, *batch.latents.shape[1:], generator=generator)[own]


@dataclass(frozen=True)
class Asked:
    """A pack on its device, with the noise levels [T] and the noise of each of its clips, and how much each token
    counts (None: all the same). `count` is how many numbers are asked for, by weight, in the whole step."""

    captions: list[str]
    latents: list[Tensor]
    levels: list[Tensor]
    noises: list[Tensor]
    weights: list[Tensor] | None
    count: Tensor

    @property
    def noisy(self) -> list[Tensor]:
        """What the transformer is shown."""
        given = zip(self.latents, self.noises, self.levels, strict=True)
        return [add_noise(latents[None], noise[None], levels[None])[0] for latents, noise, levels in given]


def ask(
    config: FlowLessons,
    batch: Captioned | Sequence[Pack],
    device: torch.device,
    generator: torch.Generator,
    mesh: Mesh = ALONE,
) -> list[Asked]:
    """This process's packs of a step, or its clips of a batch as one pack, under noise."""
    if isinstance(batch, Captioned):
        packs = [Pack(list(batch.latents), batch.captions, None if batch.layout is None else list(batch.layout), 0)]
        drawn = [tuple(map(list, _draw(config, batch, generator)))]
    else:
        packs = list(batch)
        drawn = [_draw_pack(config, pack, generator) for pack in packs]
    asked = []
    for pack, (levels, noises) in zip(packs, drawn, strict=True):
        weights = None
        if config.things and pack.layouts is not None:
            weights = [1 + config.things * near_bodies(layout[None].to(device)) for layout in pack.layouts]
        clips = [latents.to(device) for latents in pack.latents]
        on = [at.to(device) for at in levels]
        count = torch.stack([flow_count(*_spread(clips, on, weights, n)) for n in range(len(clips))]).sum()
        asked.append(Asked(pack.captions, clips, on, [noise.to(device) for noise in noises], weights, count))
    whole = mesh.over_shards(torch.stack([each.count for each in asked]).sum())
    return [Asked(each.captions, each.latents, each.levels, each.noises, each.weights, whole) for each in asked]


def _draw_pack(config: FlowLessons, pack: Pack, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Noise levels and noise of each clip. The first pack of a step takes what the generator says, and the others each
    have one of their own, so that no process needs to know of packs that are not its own."""
    if pack.number:
        generator = torch.Generator().manual_seed((generator.initial_seed() + pack.number * APART) % 2**63)
    levels = [draw_levels(1, clip.shape[1], config, generator)[0] for clip in pack.latents]
    return levels, [torch.randn(clip.shape, generator=generator) for clip in pack.latents]


def _spread(
    clips: list[Tensor], levels: list[Tensor], weights: list[Tensor] | None, number: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A clip, its levels and weights as `flow_error` takes them."""
    return clips[number][None], levels[number][None, :, None, None], None if weights is None else weights[number]


def judge(asked: Asked, said: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
    """`flow_lesson` for clips of different sizes: of the velocity that is said of each. The loss is this pack's part of
    the mean over the whole step."""
    total = torch.zeros((), device=asked.count.device)
    plain: list[tuple[float, float]] = []
    for number, (velocity, noise, at) in enumerate(zip(said, asked.noises, asked.levels, strict=True)):
        clip, levels, weights = _spread(asked.latents, asked.levels, asked.weights, number)
        total = total + flow_error(velocity[None], clip, noise[None], levels, weights)[0]
        if at.min() == at.max():
            plain.append((at[0].item(), mean_error(velocity.detach()[None], clip, noise[None]).item()))
    loss = total / asked.count.clamp_min(1e-8)
    return loss, {"flow": loss.item()} | unanchored([at for at, _ in plain], [error for _, error in plain])


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
