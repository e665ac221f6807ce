"""Training the autoencoder: rendered clips in, the same clips out.

Loss: mean absolute error of the pixels, plus that of their differences in space, which keeps edges sharp, and in time,
which keeps motion even: without it each latent frame brings its own details, and the video pulses. Latents whose mean
square exceeds 1 cost too: against noise of a fixed size, only that bounds what they can carry. (Such latents are those
of a VAE whose variance is fixed, and `kl_weight` asks of them what its loss does.)

An error is least where what cannot be known is left still, so a decoder brings most of a latent frame's change with the
first of its frames. `pace_weight` is for that: it counts how much changes between frames, wherever it does.
`perceptual` counts how alike frames look, and `adversarial` whether a critic can tell them from true ones: both give
sharpness, for some error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
from yozora.models.folder import load_module, save_module
from yozora.train.config import AutoencoderStage
from yozora.train.critic import Critic, contest
from yozora.train.data import HELD_OUT_SEEDS, Rendered, RenderedClips, clip_tensor, load_mix, stream, to_signed
from yozora.train.loop import fit, pick_device
from yozora.train.perceptual import in_one_row, load_perceptual
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.world import sample_scene


def train_autoencoder(config: AutoencoderStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights."""
    return fit(AutoencoderTask(config), config.run, config.optim, resume, settings=settings_of(config))


class AutoencoderTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: AutoencoderStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        if config.start_from:
            model = load_module(Autoencoder, config.start_from)
        else:
            model = Autoencoder(build(AutoencoderConfig, config.model))
        if config.kl_weight and not model.config.latent_noise:
            raise ConfigError("kl_weight is for latents under noise: set model.latent_noise, or leave it at 0")
        self.autoencoder = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
        if config.decoder_only:
            model.encoder.requires_grad_(False)
            model.norm.momentum = 0.0
        self.critic = Critic(config.adversarial.width) if config.adversarial else None
        self.model = nn.ModuleDict({"autoencoder": model, "critic": self.critic}) if self.critic else model
        looks = config.perceptual
        self.looks = load_perceptual(looks, pick_device(config.run.device)) if looks else None

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 4 and not any(part in name for part in ("stem", "head", "critic"))

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Rendered]:
        run = self.config.run
        return stream(RenderedClips(self.config.world, run.seed), start, run.steps, run.workers)

    def size(self, batch: Rendered) -> int:
        return len(batch.frames)

    def loss(self, batch: Rendered, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        frames = to_signed(batch.frames.to(device))
        again, latents = self.autoencoder.noisy_forward(frames, generator)
        again, config, moves = again.float(), self.config, frames.shape[2] > 1
        error = (again - frames) * (1 + config.things * near(batch.bodies.to(device)))
        pixels = error.abs().mean()
        edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
        motion = error.diff(dim=2).abs().mean() if moves else torch.zeros_like(pixels)
        pace = (change(again) - change(frames)).abs().mean() if moves else torch.zeros_like(pixels)
        psnr = 10 * torch.log10(4 / (again - frames).detach().square().mean((1, 2, 3, 4))).mean().item()
        excess = F.relu(latents.float().square().mean((0, 2, 3, 4)) - 1).mean()  # a channel's power stays near 1
        loss = pixels + config.gradient_weight * edges + config.motion_weight * motion + config.pace_weight * pace
        more, figures = self._more(again, frames, latents.float())
        return loss + 0.1 * excess + more, {"psnr": psnr, "motion": motion.item(), "pace": pace.item()} | figures

    def _more(self, again: Tensor, frames: Tensor, latents: Tensor) -> tuple[Tensor, dict[str, float]]:
        """What is asked for besides: see the configuration's `kl_weight`, `perceptual` and `adversarial`."""
        config, loss, figures = self.config, again.new_zeros(()), dict[str, float]()
        if config.kl_weight:
            variance = self.autoencoder.config.latent_noise**2
            kl = (latents.square().mean() + variance - 1 - math.log(variance)) / 2  # nats a number
            loss, figures = loss + config.kl_weight * kl, figures | {"kl": kl.item()}
        if config.perceptual and self.looks:
            apart = self.looks(in_one_row(again), in_one_row(frames)).mean()
            loss, figures = loss + config.perceptual.weight * apart, figures | {"perceptual": apart.item()}
        if config.adversarial and self.critic:
            fooled, caught, right = contest(self.critic, again, frames)
            loss = loss + config.adversarial.weight * fooled + caught
            figures |= {"fooled": fooled.item(), "critic": caught.item(), "critic_right": right}
        return loss, figures

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """Four held-out clips above their reconstructions."""
        mix, bucket = load_mix(self.config.world.mix), self.config.world.buckets[0]
        device = next(model.parameters()).device
        rows = []
        for seed in range(HELD_OUT_SEEDS, HELD_OUT_SEEDS + 4):
            clip = clip_tensor(sample_scene(seed, mix), bucket, self.config.world.fps)
            with torch.no_grad():
                again = alone(model)(to_signed(clip[None].to(device)))[0].float().cpu()
            rows += [clip, ((again.clamp(-1, 1) + 1) * 127.5).round().byte()]
        pick = np.linspace(0, bucket.frames - 1, min(8, bucket.frames)).astype(int)
        sheet = torch.cat([torch.cat([row[:, i] for i in pick], dim=2) for row in rows], dim=1)
        folder.mkdir(parents=True, exist_ok=True)
        Clip(sheet.permute(1, 2, 0).numpy()[None], fps=1).write(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(alone(model), folder, torch.bfloat16)


def alone(model: nn.Module) -> nn.Module:
    """The autoencoder of what is trained, without its critic."""
    return model["autoencoder"] if isinstance(model, nn.ModuleDict) else model


def near(bodies: Tensor) -> Tensor:
    """Bool [B, T, h, w] of cells of 4x4 pixels → float32 [B, 1, T, 4h, 4w]: 1 in a body's cells and those next to
    them, where its outline is."""
    grown = F.max_pool2d(bodies.float(), 3, stride=1, padding=1)
    return grown.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]


def change(frames: Tensor) -> Tensor:
    """How much each square of 8x8 pixels changes from frame to frame: [B, 3, T, H, W] → [B, T - 1, H / 8, W / 8]."""
    return F.avg_pool2d(frames.diff(dim=2).abs().mean(1), 8)
