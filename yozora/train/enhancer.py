"""Training the enhancer: small, soft and noisy frames in, large clean ones and those between out.

What is enlarged later are generated frames, above all: so half of those it learns from have been through the
autoencoder, and the others are a small rendering or a large one shrunk, slightly blurred and noised. Loss: mean
absolute error of the pixels, plus that of their differences in space, for both networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.enhancer import Enhancer, EnhancerConfig
from yozora.models.folder import load_module, save_module
from yozora.train.config import EnhancerStage
from yozora.train.data import HELD_OUT_SEEDS, stream, to_signed
from yozora.train.loop import fit
from yozora.train.moments import Moments, MomentSource, clips_in
from yozora.train.resumed import settings_of
from yozora.train.settings import build

FIRST_ESTIMATE = 0.3  # weight of the frame between by the coarse motion, which keeps that a good start


def train_enhancer(config: EnhancerStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights. Raises ConfigError, ModelError."""
    return fit(EnhancerTask(config), config.run, config.optim, resume, settings=settings_of(config))


class EnhancerTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: EnhancerStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        self.model = Enhancer(build(EnhancerConfig, config.model)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.factor = self.model.config.factor
        for bucket in config.world.buckets:
            if min(bucket.width, bucket.height) < config.crop or bucket.frames < 5:
                raise ConfigError(
                    f"world.buckets: each needs 5 frames and sides of at least crop = {config.crop} pixels"
                )
        if config.media:
            for bucket in config.world.buckets:
                clips_in(config.media.folder, (self.factor * bucket.width, self.factor * bucket.height))
        self.coder = config.autoencoder and load_module(Autoencoder, config.autoencoder).requires_grad_(False)

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 4 and "stem" not in name and "head" not in name

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Moments]:
        run, world = self.config.run, self.config.world
        return stream(MomentSource(world, self.config.media, self.factor, run.seed), start, run.steps, run.workers)

    def size(self, batch: Moments) -> int:
        return len(batch.low)

    def loss(self, batch: Moments, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        high, middle = to_signed(batch.high.to(device)), to_signed(batch.middle.to(device))
        seen = self._coded(to_signed(batch.low.to(device)), generator)

        picture = shrunk_or_seen(high, seen[:, :, batch.shown], generator)
        small, wanted = cut_alike(worsened(picture, generator), high, self.config.crop, generator)
        error = self.model.upscaler(small) - wanted
        plain = F.interpolate(small, size=wanted.shape[-2:], mode="bicubic") - wanted

        pair = worsened(seen[:, :, batch.first : batch.first + 2].transpose(1, 2).flatten(0, 1), generator)
        before, after = pair.unflatten(0, (-1, 2)).unbind(1)
        drafts = [frame - middle for frame in self.model.between.draw(before, after, batch.moment.to(device))]
        moment = batch.moment.to(device).view(-1, 1, 1, 1)
        faded = torch.lerp(before, after, moment) - middle

        weight, between = self.config.gradient_weight, self.config.between_weight
        loss = distance(error, weight) + between * (
            distance(drafts[1], weight) + FIRST_ESTIMATE * distance(drafts[0], weight)
        )
        return loss, {
            "psnr": psnr(error),
            "gain": psnr(error) - psnr(plain),
            "between_psnr": psnr(drafts[1]),
            "between_gain": psnr(drafts[1]) - psnr(faded),
        }

    @torch.no_grad()
    def _coded(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """Clips `[B, 3, T, h, w]`, some of which have been through the autoencoder, with its noise in the latents."""
        count = round(self.config.coded * len(clips))
        if not self.coder or not count:
            return clips
        coder = self.coder.to(clips.device)
        latents = coder.encode(clips[:count])
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        again = coder.decode(latents + coder.config.latent_noise * noise)
        return torch.cat([again.float().clamp(-1, 1), clips[count:]])

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """Two held-out batches: bicubic above enlarged above true, and cross-faded above drawn above true."""
        world = self.config.world.model_copy(update={"buckets": self.config.world.buckets[:1]})  # one size: one sheet
        source = MomentSource(world, None, self.factor, self.config.run.seed, HELD_OUT_SEEDS)
        generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device
        rows: list[Tensor] = []
        with torch.no_grad():
            for number in range(2):
                batch = source.batch(number)
                high, middle = to_signed(batch.high[:4].to(device)), to_signed(batch.middle[:4].to(device))
                seen, moment = self._coded(to_signed(batch.low[:4].to(device)), generator), batch.moment[:4].to(device)
                picture, (before, after) = seen[:, :, batch.shown], seen[:, :, batch.first : batch.first + 2].unbind(2)
                rows += [F.interpolate(picture, size=high.shape[-2:], mode="bicubic"), model.upscaler(picture), high]  # pyright: ignore[reportCallIssue]
                faded = torch.lerp(before, after, moment.view(-1, 1, 1, 1))
                drawn = model.between(before, after, moment)  # pyright: ignore[reportCallIssue]
                rows += [F.interpolate(row, size=high.shape[-2:]) for row in (faded, drawn, middle)]
        folder.mkdir(parents=True, exist_ok=True)
        sheet = torch.cat([torch.cat(row.float().unbind(0), dim=2) for row in rows], dim=1).clamp(-1, 1)
        pixels = ((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        Clip(pixels[None], fps=1).write(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.bfloat16)


def shrunk_or_seen(high: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """A third of the frames of `seen` `[B, 3, h, w]`, at random, replaced by `high`, shrunk to its size by area."""
    shrunk = F.interpolate(high, size=seen.shape[-2:], mode="area")
    which = (torch.rand(len(seen), 1, 1, 1, generator=generator) < 1 / 3).to(seen.device)
    return torch.where(which, shrunk, seen)


def worsened(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames `[N, 3, h, w]`, half of them slightly blurred and noised, each to a degree of its own."""
    shape = (len(frames), 1, 1, 1)
    degree = (2 * torch.rand(shape, generator=generator) - 1).clamp_min(0).to(frames.device)
    soft = F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    grain = 0.03 * (2 * torch.rand(shape, generator=generator) - 1).clamp_min(0).to(frames.device)
    noise = torch.randn(frames.shape, generator=generator).to(frames.device)
    return torch.lerp(frames, soft, degree * 0.7) + grain * noise


def cut_alike(low: Tensor, high: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of `side` pixels of `low` out of both."""
    factor = high.shape[-1] // low.shape[-1]
    top, left = (int(torch.randint(edge - side + 1, (), generator=generator)) for edge in low.shape[-2:])
    there = (slice(top * factor, (top + side) * factor), slice(left * factor, (left + side) * factor))
    return low[..., top : top + side, left : left + side], high[..., there[0], there[1]]


def distance(error: Tensor, gradient_weight: float) -> Tensor:
    """Mean absolute error, and that of the differences between neighbouring pixels."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + gradient_weight * edges


def psnr(error: Tensor) -> float:
    """Of frames in -1..1, dB, the mean over the batch."""
    return float(10 * torch.log10(4 / error.detach().square().mean((1, 2, 3)).clamp_min(1e-10)).mean())
