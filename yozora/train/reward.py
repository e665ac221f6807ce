"""Reward: few-step weights learn from what is seen in their own videos.

A flow map learns where its teacher's steps lead, and so it is never better than its teacher. Here its few steps go from
noise to a video of a prompt that names one thing, an inspector says how surely it sees that thing, in its colour and
alone, and the gradient of what it says goes back through inspector, decoder and every step (direct reward fine-tuning:
DRaFT, Clark et al. 2024; AlignProp, Prabhudesai et al. 2023).

What is rewarded is soon over-fitted. So pictures are blurred, shaded and noised before they are judged; a video must
stay near the one that the weights made before, of the same noise; and the inspector should be another than the one that
evaluation judges by.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from yozora.diffusion import add_noise, schedule
from yozora.diffusion.path import spread_levels
from yozora.errors import ConfigError
from yozora.models.adapter import Adapter, few_step_config
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector, boxes, largest_part
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import Bucket, Optim, Run, Section, StepCounts, Weights
from yozora.train.data import HELD_OUT_SEEDS, Source, load_mix, pick, pick_bucket, stream
from yozora.train.distill import in_few_steps
from yozora.train.flow import draw_hold
from yozora.train.inspector import shaken, soften
from yozora.train.loop import fit, pick_device
from yozora.train.resumed import settings_of
from yozora.train.transformer import most_drawn, write_samples
from yozora.world import SceneMix, describe, sample_scene
from yozora.world.mix import PAIR_MOTIONS
from yozora.world.scene import COLOURS, SHAPES
from yozora.world.words.seen import COLOURLESS_STYLES

UNSEEN = ("hide", "recolour", *PAIR_MOTIONS)  # motions of a thing that is not one thing of one colour in plain sight
LEAST_CELLS = 12  # of the inspector's, for a thing's shape to be judged, and what is beside it
ASIDE = 2  # cells around a thing that are not judged: its edge
LEAST_LATENTS = 3  # of a video's latent frames: at least so many are drawn and judged


class RewardStage(Section):
    """`yozora train reward`: few-step weights (`adapter`) of a transformer (`start_from`, a model folder or an exported
    run) learn to make things that an `inspector` names as the prompt does.

    Scenes of `mix`, one thing each, are asked for in as many steps as `step_counts` says (by weight). Of each video
    `pictures` are judged. What counts beside the shape: the `colour`, that the thing is `there` and `alone`, and that
    latents stay `near` (mean squared difference) those that the weights made before. Nothing but the last counts in a
    share of the videos (`anchored`), frames of which are held: they are to be gone on with as before. What is written
    is a part of the `way` from the weights of before to those that were learned (WiSE-FT, Wortsman et al. 2022).
    """

    run: Run
    optim: Optim
    start_from: Path
    autoencoder: Path
    adapter: Path
    inspector: Path
    mix: str | dict[str, Any] = "simple"
    buckets: tuple[Bucket, ...] = Field(min_length=1)
    languages: Weights = Field(default={"en": 0.7, "de": 0.1, "fr": 0.1, "es": 0.1})
    details: Weights = Field(default={"short": 0.85, "dense": 0.15})
    step_counts: StepCounts = Field(default={"4": 1.0})
    anchored: float = Field(default=0.25, ge=0, le=1)
    shift: float = Field(default=2.0, gt=0, le=100)
    pictures: int = Field(default=4, gt=0)
    colour: float = Field(default=0.3, ge=0)
    there: float = Field(default=0.1, ge=0)
    alone: float = Field(default=0.3, ge=0)
    near: float = Field(default=2.0, ge=0)
    way: float = Field(default=0.5, gt=0, le=1)


class Asked(NamedTuple):
    """Captions, of one thing each, the numbers of its shape and of its colour, int64 [B], and the size of video."""

    captions: list[str]
    shapes: Tensor
    colours: Tensor
    bucket: Bucket


class Seen(NamedTuple):
    """What the inspector saw: mean losses of shape and colour, of a thing that is not there and of things beside it,
    and the share of judged pictures whose shape is right."""

    shape: Tensor
    colour: Tensor
    there: Tensor
    alone: Tensor
    right: float


def train_by_reward(config: RewardStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged adapter, as `yozora train distill` does."""
    return fit(RewardTask(config), config.run, config.optim, resume, settings=settings_of(config))


@dataclass(frozen=True)
class Wishes(Source[Asked]):
    """Captions of fresh scenes of one thing in plain sight."""

    config: RewardStage

    def batch(self, step: int) -> Asked:
        config, random = self.config, np.random.default_rng((self.config.run.seed, step))
        bucket, mix = pick_bucket(config.buckets, random), one_thing(load_mix(config.mix))
        scenes = [sample_scene(int(seed), mix) for seed in random.integers(0, HELD_OUT_SEEDS, bucket.batch)]
        detail = pick(config.details, random)
        captions = [
            describe(scene, pick(config.languages, random), detail, seed=int(random.integers(1 << 31)))
            for scene in scenes
        ]
        things = [scene.bodies[0] for scene in scenes]
        shapes = torch.tensor([SHAPES.index(thing.shape) for thing in things])
        return Asked(captions, shapes, torch.tensor([list(COLOURS).index(thing.colour) for thing in things]), bucket)


def one_thing(mix: SceneMix) -> SceneMix:
    """The mix with one thing a scene, in plain sight, of one colour and in a style that shows it. Raises ConfigError
    where nothing is left."""
    motions = {name: weight for name, weight in mix.motions.items() if name not in UNSEEN}
    styles = {name: weight for name, weight in mix.styles.items() if name not in COLOURLESS_STYLES}
    return replace(mix, count={"1": 1.0}, motions=motions, styles=styles)


class RewardTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: RewardStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        device = pick_device(config.run.device)
        self.autoencoder = load_module(Autoencoder, config.autoencoder, device).requires_grad_(False)
        self.text = load_module(TextEncoder, config.start_from / "text_encoder", device).requires_grad_(False)
        self.teacher = load_module(Transformer, config.start_from / "transformer", device).requires_grad_(False)
        self.inspector = load_module(Inspector, config.inspector, device, torch.float32).eval().requires_grad_(False)
        named = self.inspector.config
        if (named.shapes, named.colours) != (SHAPES, tuple(COLOURS)):
            raise ConfigError(f"{config.inspector} names other shapes or colours than scenes have: train it anew")
        adapter = load_module(Adapter, config.adapter, device)
        adapter.check(self.teacher)
        self.model = adapter.float().requires_grad_()
        self.student = Transformer(few_step_config(self.teacher.config)).to(device).requires_grad_(False)
        self.student.load_state_dict(self.teacher.state_dict(), strict=False)
        self.began = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        # a copy, since a change's parameters may be among what `changed` gives
        self.before = {name: weight.detach().clone() for name, weight in self.model.changed(self.teacher).items()}
        self.counts = {int(count): weight for count, weight in config.step_counts.items() if weight}
        self._check()

    def _check(self) -> None:
        """Raises ConfigError where the networks do not fit one another, or what is asked for."""
        one_thing(load_mix(self.config.mix))
        base, sizes = self.teacher.config, self.autoencoder.config
        if (sizes.channels, self.text.config.width) != (base.channels, base.text_width):
            raise ConfigError(
                "start_from: its transformer is for other latents, or another text encoder, than are given"
            )
        for bucket in self.config.buckets:
            cells = 1 + (bucket.frames - 1) // sizes.temporal, *_sides(bucket, sizes.spatial)
            if any(side % part for side, part in zip(cells, base.patch, strict=True)):
                raise ConfigError(
                    f"buckets: {bucket.width}x{bucket.height} cannot be cut into the transformer's patches"
                )

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return False  # see `yozora.train.distill`

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Asked]:
        run = self.config.run
        return stream(Wishes(self.config), start, run.steps, run.workers)

    def size(self, batch: Asked) -> int:
        return len(batch.captions)

    def loss(self, batch: Asked, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What the inspector misses in videos of the batch's captions, and how far they are from those of before."""
        config, device = self.config, next(self.model.parameters()).device
        weights = torch.tensor(list(self.counts.values()))
        steps = list(self.counts)[int(torch.multinomial(weights, 1, generator=generator))]
        levels = schedule(steps, config.shift).tolist()
        noise = torch.randn(self._shape(batch), generator=generator).to(device)
        hold = draw_hold(len(noise), noise.shape[2], config.anchored, generator).to(device)
        held = hold.amax(1) > 0
        with torch.no_grad():
            text = self.text(batch.captions)
            before = self._walk(self.before, noise, levels, torch.ones_like(hold), text)
            begun = add_noise(before, noise, 1 - hold)
            if held.any():
                some = text[0][held], text[1][held]
                before[held] = self._walk(self.before, begun[held], levels, 1 - hold[held], some)
        with torch.autocast(device.type, enabled=False):
            changed = self.model.changed(self.teacher)
        latents = self._walk(changed, begun, levels, 1 - hold, text)
        near = (latents - before).square().mean()
        loss, figures = config.near * near, {"near": near.item()}
        if not held.all():
            seen = self._look(latents, batch, ~held, generator)
            loss = (
                loss + seen.shape + config.colour * seen.colour + config.there * seen.there + config.alone * seen.alone
            )
            figures |= {name: torch.as_tensor(value).item() for name, value in seen._asdict().items()}
        return loss, figures

    def _shape(self, batch: Asked) -> tuple[int, ...]:
        sizes, bucket = self.autoencoder.config, batch.bucket
        length = 1 + (bucket.frames - 1) // sizes.temporal
        return len(batch.captions), sizes.channels, length, *_sides(bucket, sizes.spatial)

    def _walk(
        self,
        weights: dict[str, Tensor],
        latents: Tensor,
        levels: list[float],
        highest: Tensor,
        text: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Where the few steps lead latents [B, C, T, H, W] that begin at the levels `highest` [B, T]; float32."""
        for here, there in pairwise(levels):
            level = highest.clamp(max=here)
            stride = level - highest.clamp(max=there)
            mean = functional_call(self.student, weights, (latents, level, *text, stride)).float()
            latents = latents - spread_levels(stride, latents).float() * mean
        return latents

    def _look(self, latents: Tensor, batch: Asked, which: Tensor, generator: torch.Generator) -> Seen:
        """Draws the beginning of the videos in `which`, bool [B], of a length that differs from step to step, and
        judges pictures of it."""
        latents, frames = latents[which], latents.shape[2]
        least = min(LEAST_LATENTS, frames)
        length = least + int(torch.rand((), generator=generator) * (frames - least + 1))
        drawn = self.autoencoder.decode(latents[:, :, :length])
        chosen = torch.randperm(drawn.shape[2], generator=generator)[: self.config.pictures].to(latents.device)
        pictures = drawn[:, :, chosen].float().transpose(1, 2)
        with torch.autocast(latents.device.type, enabled=False):
            shapes, colours = (
                names.to(latents.device)[which].repeat_interleave(len(chosen))
                for names in (batch.shapes, batch.colours)
            )
            return judged(self.inspector, pictures.flatten(0, 1), shapes, colours, generator)

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """The sample prompts in as many steps as the fewest that are practised, with what would be written."""
        bucket, levels = most_drawn(self.config.buckets), schedule(min(self.counts), self.config.shift)
        draw = in_few_steps(self._part_of_the_way(model), self.teacher, self.text, levels)
        write_samples(draw, self.autoencoder, bucket, step, folder)

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(self._part_of_the_way(model), folder / "few_steps", torch.bfloat16)

    def _part_of_the_way(self, model: nn.Module) -> Adapter:
        """The adapter between that of before and what was learned: see `way`."""
        assert isinstance(model, Adapter)
        made, learned = copy.deepcopy(model), model.state_dict()
        began = {name: weight.to(learned[name]) for name, weight in self.began.items()}
        made.load_state_dict({name: began[name].lerp(weight, self.config.way) for name, weight in learned.items()})
        return made


def _sides(bucket: Bucket, spatial: int) -> tuple[int, int]:
    return bucket.height // spatial, bucket.width // spatial


def judged(inspector: Inspector, pictures: Tensor, shapes: Tensor, colours: Tensor, generator: torch.Generator) -> Seen:
    """How well pictures [N, 3, H, W] in -1..1, softened at random, show one thing each of these shapes and colours
    (int64 [N]), by the largest thing in each. A shape is only judged where all of the thing is in the picture."""
    order = torch.randperm(len(pictures), generator=generator).to(pictures.device)  # neighbours are softened alike
    soft = soften(pictures[order], generator)
    shapes, colours = shapes[order], colours[order]
    cells = inspector(soft)
    with torch.no_grad():
        mask = largest_part(cells.thing > 0)
        area = mask.sum((1, 2))
        cut = mask[:, [0, -1]].any(2).any(1) | mask[:, :, [0, -1]].any(2).any(1)
        found = area >= LEAST_CELLS
        clear = (found & ~cut).float()
        around = F.max_pool2d(mask[:, None].float(), 2 * ASIDE + 1, stride=1, padding=ASIDE)[:, 0] > 0
        box = shaken(boxes(mask), generator)
    named = inspector.shapes(soft, cells.thing.detach().sigmoid(), box)
    missed = F.cross_entropy(named, shapes, reduction="none")
    tinted = F.cross_entropy(cells.colour, colours.view(-1, 1, 1).expand_as(mask), reduction="none")
    beside = (cells.thing.sigmoid() * ~around).sum((1, 2)) / area.clamp_min(LEAST_CELLS)
    surest = cells.thing.flatten(1).topk(LEAST_CELLS, dim=1).values.mean(1)  # or what is hard to make would be left out
    right = (named.argmax(1) == shapes).float()
    return Seen(
        (missed * clear).sum() / clear.sum().clamp_min(1),
        (tinted * mask).sum() / mask.sum().clamp_min(1),
        F.softplus(-surest).mean(),
        (beside.clamp_max(2.0) * found).mean(),  # or what is hardly there would be beside nothing, and be pushed away
        float((right * clear).sum() / clear.sum()),
    )
