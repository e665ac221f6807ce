"""Distillation: one long step of the few-step transformer learns to end where several guided ones of its teacher end.

From a clip under noise at level t, the trained transformer goes down to level s in `substeps` steps, with guidance. The
mean velocity on that way is what the student has to say at t, told the length t - s: a flow map (Boffi et al. 2024), so
that more steps are still better. Steps as long as those of few-step schedules are practised: from renders, or, since
guided steps lead where no render is, from where the student's own steps have led from noise (as in DAgger, Ross et al.
2011), or on the teacher's own ways from noise, recorded once (`yozora.train.courses`). The student is its teacher with
an adapter, which is all that is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from yozora.diffusion import FLOW_MAP, SOLVERS, Velocity, add_noise, flow_map, guided, sample, schedule, shift_levels
from yozora.diffusion.path import spread_levels
from yozora.diffusion.solvers import Answer
from yozora.errors import ConfigError
from yozora.models.adapter import Adapter, AdapterConfig, few_step_config
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import DistillStage
from yozora.train.courses import Recorded, batches, record, state_at
from yozora.train.flow import draw_hold
from yozora.train.layout import near_bodies
from yozora.train.lessons import Captioned
from yozora.train.loop import fit, pick_device
from yozora.train.parallel import with_kernels
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.train.transformer import PROMPTS, buckets_of, most_drawn, write_samples


def train_few_steps(config: DistillStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged adapter."""
    return fit(DistillTask(config, resume), config.run, config.optim, resume, settings=settings_of(config))


class Practice(NamedTuple):
    """Levels float64 [steps + 1, B, T] down which the student goes by itself (where it only begins: one); those
    [substeps + 1, B, T] of the step that it learns, from there on; and the parts of the whole way, 0..1, [2, B], from
    which to which that step goes."""

    way: Tensor
    path: Tensor
    part: Tensor


class DistillTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: DistillStage, resume: bool = True):
        self.config = config
        torch.manual_seed(config.run.seed)
        device = pick_device(config.run.device)
        self.autoencoder = load_module(Autoencoder, config.autoencoder, device)
        self.text = load_module(TextEncoder, config.start_from / "text_encoder", device)
        self.teacher = load_module(Transformer, config.start_from / "transformer", device).requires_grad_(False)
        self.model = self._adapter()
        self.student = Transformer(few_step_config(self.teacher.config)).to(device).requires_grad_(False)
        self.student.load_state_dict(self.teacher.state_dict(), strict=False)
        if config.compile:
            with_kernels(self.teacher)
            with_kernels(self.student)
        self.counts = [int(count) for count in config.step_counts]
        self.courses = record(config, self.teacher, self.text, resume) if config.courses else None

    def _adapter(self) -> Adapter:
        """A fresh one, or the one to go on from, of a larger rank where [model] asks for that."""
        asked = build(AdapterConfig, {"base": self.teacher.config} | self.config.model)
        if self.config.adapter is None:
            return Adapter(asked)
        learned = load_module(Adapter, self.config.adapter)
        learned.check(self.teacher)
        if self.config.model and asked.rank < learned.config.rank:
            raise ConfigError(f"[model] rank: {asked.rank} is less than the adapter's {learned.config.rank}")
        return learned.float().requires_grad_().grown(asked.rank if self.config.model else learned.config.rank)

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return False  # what a low-rank change adds up to, not its factors, is what Muon would make even

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Captioned | Recorded]:
        return batches(self.config, self.courses, start)

    def size(self, batch: Captioned | Recorded) -> int:
        return len(batch.captions)

    def loss(self, batch: Captioned | Recorded, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error of the mean velocity over a step, over all frames that move in it."""
        device = next(self.model.parameters()).device
        recorded = isinstance(batch, Recorded)
        latents = (batch.states[:, 0] if recorded else batch.latents).to(device)
        practice = self._draw(latents.shape[0], latents.shape[2], generator, batch.hold if recorded else None)
        way, path = practice.way.to(device), practice.path.to(device)
        if not recorded:
            noisy = add_noise(latents, torch.randn(latents.shape, generator=generator).to(device), way[0])
        elif len(way) > 1:
            noisy = latents  # the course's own beginning, from where the student goes by itself
        else:
            noisy = state_at(batch.states, practice.part[0] * (batch.states.shape[1] - 1)).to(device)
        with torch.autocast(device.type, enabled=False):
            weights = self.model.changed(self.teacher)
        spans = path[0] - path[-1]
        lengths = spread_levels(spans, latents).float()
        with torch.no_grad():
            states, mask = self.text(batch.captions)
            for here, there in pairwise(way):
                stride = here - there
                mean = functional_call(self.student, weights, (noisy, here.float(), states, mask, stride.float()))
                noisy = noisy - spread_levels(stride, noisy).float() * mean.float()
            if recorded:
                end = state_at(batch.states, practice.part[1] * (batch.states.shape[1] - 1)).to(device)
            else:
                end = follow(self._guided(states, mask), noisy, path)
            target = (noisy - end) / lengths.clamp_min(1e-6)
        given = noisy, path[0].float(), states, mask, spans.float()
        said = functional_call(self.student, weights, given)
        counts = (lengths > 0).float()
        if recorded and len(way) > 1:
            # to get back onto the course takes a velocity that is the larger the shorter the step is: what counts is
            # how far it is, in steps of a mean length
            share = (practice.part[1] - practice.part[0]).float().to(device)
            counts = counts * (lengths / share.view(-1, 1, 1, 1, 1)) ** 2
        if self.config.things and not recorded and batch.layout is not None:
            counts = counts * (1 + self.config.things * near_bodies(batch.layout.to(device))[:, None])
        error = (said - target).square().mean(1, keepdim=True)
        counts = counts.expand_as(error)
        loss = (error * counts).sum() / counts.sum().clamp_min(1e-8)
        size = (target.square().mean(1, keepdim=True) * counts).sum() / counts.sum().clamp_min(1e-8)
        return loss, {"relative": (loss / size).item()}

    def _guided(self, states: Tensor, mask: Tensor) -> Velocity:
        null, config = self.text([""]), self.config
        return guided(self.teacher, (states, mask), null, config.guidance, projected=config.projected)

    def _draw(self, batch: int, frames: int, generator: torch.Generator, hold: Tensor | None = None) -> Practice:
        """What is practised with these clips; `hold` [B, T] is drawn where it is not given. The student goes alone only
        where it begins in noise, and then all clips of a batch go as many steps."""
        own = bool(torch.rand((), generator=generator) < self.config.own) if self.config.own else False
        weights = torch.tensor(list(self.config.step_counts.values()))
        drawn = 1 if own else batch
        counts = torch.tensor(self.counts)[torch.multinomial(weights, drawn, replacement=True, generator=generator)]
        begin = (torch.rand(drawn, generator=generator) * counts).floor()  # which of the steps it is
        hold = draw_hold(batch, frames, self.config.anchored, generator) if hold is None else hold
        ceiling = 1 - hold.double()

        def levels(places: Tensor) -> Tensor:
            at = shift_levels(1 - places / counts, self.config.shift).clamp(0, 1)
            return torch.minimum(at[:, :, None].expand(-1, batch, -1), ceiling)

        substeps = torch.arange(self.config.substeps + 1, dtype=torch.float64)[:, None] / self.config.substeps
        before = torch.arange(int(begin) + 1, dtype=torch.float64)[:, None] if own else begin[None].double()
        part = torch.stack((begin, begin + 1)).double() / counts
        return Practice(levels(before), levels(begin + substeps), part.expand(2, batch))

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """The sample prompts in as many steps as the fewest that are practised."""
        assert isinstance(model, Adapter)
        draw = in_few_steps(model, self.teacher, self.text, schedule(min(self.counts), self.config.shift))
        write_samples(draw, self.autoencoder, most_drawn(buckets_of(self.config)), step, folder)

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder / "few_steps", torch.bfloat16)


def in_few_steps(
    adapter: Adapter, teacher: Transformer, text: TextEncoder, levels: Tensor
) -> Callable[[Tensor], Tensor]:
    """What makes latents of the sample prompts of noise, in the steps between these levels."""
    velocity = flow_map(adapter.onto(teacher), text(list(PROMPTS)))

    def draw(noise: Tensor) -> Tensor:
        *_, last = sample(velocity, noise, levels, solver=FLOW_MAP)
        return last.latents

    return draw


def follow(velocity: Velocity, latents: Tensor, path: Tensor | Sequence[Tensor]) -> Tensor:
    """Where the velocity leads latents [B, C, T, H, W] along a path of levels float64 [B, T], by the default solver."""
    last = None
    for here, there in pairwise(path):
        direction = velocity(latents, here.float(), there.float()).float()
        answer = Answer(here, direction, latents)
        latents, last = SOLVERS["multistep"](latents, there, answer, last), answer
    return latents
