"""The Generator: a loaded model that fills a canvas. Text → sampling → latents → frames, with progress on the way.

The same seed, model, canvas and device give the same bytes: noise is drawn on the CPU in float32, from one generator a
seed, so that it depends neither on the device nor on what else is made in the same batch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from yozora.clip import Clip, Recipe
from yozora.create.canvas import Canvas
from yozora.create.limits import check_guidance, check_seeds, check_steps
from yozora.create.sizes import Grid, Native, check_fps
from yozora.create.ways import Picture, image_to_video, text_to_video
from yozora.diffusion import SOLVERS, cue_text, guided, sample, schedule
from yozora.errors import CanvasError, ModelError
from yozora.models.registry import CARD, Bundle, load_bundle

DEVICES = ("cpu", "cuda", "mps", "xpu")
DECODE_LATENTS = 4  # latent frames decoded at a time


class YozoraWarning(UserWarning):
    """The canvas is outside what the model was trained on: the result may be poor."""


@dataclass(frozen=True)
class Progress:
    """`step` of `total` is done in `stage` ("text", "sample", "decode"), `seconds` after the start of the run.
    `preview` uint8 [H, W, 3], where asked for, is the first frame as the model sees it at this step."""

    stage: str
    step: int
    total: int
    seconds: float
    preview: np.ndarray | None = None


@dataclass(frozen=True)
class Settings:
    """How a canvas is sampled, complete: model evaluations, guidance (1 = none), solver."""

    steps: int
    guidance: float
    solver: str

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_guidance(self.guidance)
        if self.solver not in SOLVERS:
            raise CanvasError(f"unknown solver {self.solver!r}; known: {', '.join(SOLVERS)}")


def load(name_or_folder: str | Path = "mini", device: str = "auto", dtype: torch.dtype | None = None) -> Generator:
    """The Generator of a shipped model or a folder. `device` "auto" is the GPU where there is one; `dtype` None is
    bfloat16 where the device is quick at it, else float32. Raises ModelError."""
    return Generator(load_bundle(name_or_folder, _device(device), dtype))


class Generator:
    """A loaded model; see `load`. Raises ModelError where its card asks for what no run can do."""

    def __init__(self, bundle: Bundle):
        config, card = bundle.autoencoder.config, bundle.card
        self.bundle = bundle
        self.grid = Grid(config.spatial, config.temporal, bundle.transformer.config.patch[1])
        self.native = Native(card.sizes, card.frames_min, card.frames_max, card.fps, self.grid)
        try:
            check_fps(card.fps)
            self.settings()
        except CanvasError as error:
            raise ModelError(f"the model {card.name!r} cannot be used ({error}): correct its {CARD}") from None

    def generate(
        self,
        prompt: str,
        image: Picture | None = None,
        *,
        seconds: float | None = None,
        size: str | tuple[int, int] | None = None,
        aspect: str | float | None = None,
        resolution: str | int | None = None,
        negative: str = "",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Clip:
        """A video of `prompt`, starting from `image` where given. What is None is as the model was trained.
        Raises CanvasError, MediaError; warns (YozoraWarning) outside the trained range."""
        asked = {"native": self.native, "seconds": seconds, "size": size, "aspect": aspect, "resolution": resolution}
        if image is None:
            canvas = text_to_video(prompt, negative=negative, **asked)
        else:
            canvas = image_to_video(image, prompt, negative=negative, **asked)
        return self.run_many(canvas, [seed], steps=steps, guidance=guidance)[0]

    def run_many(
        self,
        canvas: Canvas,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
    ) -> tuple[Clip, ...]:
        """One clip a seed, sampled in one batch; as `run`, without the progress."""
        *_, clips = self.run(canvas, seeds, steps=steps, guidance=guidance, solver=solver)
        assert isinstance(clips, tuple)
        return clips

    @overload
    def run(
        self, canvas: Canvas, seed: int = 0, *, steps: int | None = ..., guidance: float | None = ...,
        solver: str | None = ..., previews: bool = ...,
    ) -> Iterator[Progress | Clip]: ...  # fmt: skip
    @overload
    def run(
        self, canvas: Canvas, seed: Sequence[int], *, steps: int | None = ..., guidance: float | None = ...,
        solver: str | None = ..., previews: bool = ...,
    ) -> Iterator[Progress | tuple[Clip, ...]]: ...  # fmt: skip
    def run(
        self,
        canvas: Canvas,
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        previews: bool = False,
    ) -> Iterator[Progress | Clip | tuple[Clip, ...]]:
        """Fills the canvas: yields Progress and at the end a Clip, or with several seeds (variations, sampled in one
        batch) a tuple of Clips. Stop early by closing the iterator. Raises CanvasError before any work."""
        seeds = [seed] if isinstance(seed, int) else list(seed)
        settings = self.settings(steps, guidance, solver)
        self.check(canvas, seeds)
        for line in self.cautions(canvas):
            warnings.warn(line, YozoraWarning, stacklevel=2)
        return self._run(canvas, seeds, settings, previews, single=isinstance(seed, int))

    def settings(self, steps: int | None = None, guidance: float | None = None, solver: str | None = None) -> Settings:
        """The settings of a run: what is None is as the model card says. Raises CanvasError."""
        card = self.bundle.card
        return Settings(
            card.steps if steps is None else steps,
            float(card.guidance if guidance is None else guidance),
            card.solver if solver is None else solver,
        )

    def cautions(self, canvas: Canvas) -> list[str]:
        """One line for each way in which the canvas lies outside what the model was trained on; usually none."""
        lines = self.native.cautions(canvas.width, canvas.height, canvas.frames, canvas.fps)
        if any(self.bundle.text_encoder.is_cut(cue.prompt) for cue in canvas.cues):
            most = self.bundle.text_encoder.config.max_tokens
            lines.append(f"the prompt is longer than this model reads ({most} tokens): its end is left out")
        return lines

    def check(self, canvas: Canvas, seeds: Sequence[int]) -> None:
        """Raises CanvasError for a canvas that this model cannot fill, and for seeds that are none."""
        canvas.check(self.grid)
        self.native.check_tokens(canvas.width, canvas.height, canvas.frames)
        if canvas.loop:
            raise CanvasError("looping is not supported by this model: leave loop out")
        check_seeds(seeds)

    def _run(
        self, canvas: Canvas, seeds: list[int], settings: Settings, previews: bool, *, single: bool
    ) -> Iterator[Progress | Clip | tuple[Clip, ...]]:
        start = time.perf_counter()

        def progress(stage: str, step: int, total: int, preview: np.ndarray | None = None) -> Progress:
            return Progress(stage, step, total, time.perf_counter() - start, preview)

        with _memory_errors(canvas):
            text, null, known, hold = self._conditions(canvas, len(seeds), settings.guidance)
            yield progress("text", 1, 1)
            velocity = guided(self.bundle.transformer, text, null, settings.guidance)
            levels = schedule(settings.steps, self.bundle.card.shift)
            latents = noise = self._noise(canvas, seeds)
            for step in sample(velocity, noise, levels, known=known, hold=hold, solver=settings.solver):
                latents = step.latents
                preview = self._frames(step.estimate[:1, :, :1])[0] if previews else None
                yield progress("sample", step.index, step.total, preview)
            if not latents.isfinite().all():
                raise ModelError("the model gave numbers that are not finite: lower the guidance, or check its weights")
            clips, length = [], latents.shape[2]
            for seed, latent in zip(seeds, latents.split(1), strict=True):
                frames = np.empty((canvas.frames, canvas.height, canvas.width, 3), np.uint8)
                filled = 0
                for chunk in self._decode(latent):
                    frames[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                    done = len(clips) * length + self.grid.latent_frames(filled)
                    yield progress("decode", done, length * len(seeds))
                clips.append(Clip(frames, canvas.fps, self._recipe(canvas, seed, settings)))
        yield clips[0] if single else tuple(clips)

    @torch.inference_mode()
    def _conditions(
        self, canvas: Canvas, batch: int, guidance: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None, Tensor | None, Tensor | None]:
        """(text, null text or None, known latents [1, C, T, H, W] or None, hold [1, T] or None)."""
        encoder, device = self.bundle.text_encoder, self.bundle.device
        states = [encoder([cue.prompt]) for cue in canvas.cues] or [encoder([""])]
        text = states[0]
        if len(states) > 1:
            text = cue_text(states, torch.from_numpy(canvas.cue_map(self.grid)).to(device))
        null = None if guidance == 1 else _repeat(encoder([canvas.negative]), batch)
        held = canvas.hold_map(self.grid)
        if held.frames is None:
            return _repeat(text, batch), null, None, None
        hold = torch.from_numpy(held.hold)[None].to(device)
        return _repeat(text, batch), null, self._known(held.frames, hold.shape[1]), hold

    def _known(self, frames: np.ndarray, length: int) -> Tensor:
        """Pixel frames uint8 [F, H, W, 3] → clean latents float32 [1, C, length, h, w], zero after `frames`."""
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].to(self.bundle.device)
        latents = self.bundle.autoencoder.encode((pixels.float() / 127.5 - 1).to(self.bundle.dtype)).float()
        known = latents.new_zeros((*latents.shape[:2], length, *latents.shape[3:]))
        known[:, :, : latents.shape[2]] = latents
        return known

    def _noise(self, canvas: Canvas, seeds: list[int]) -> Tensor:
        """Standard normal float32 [B, C, T, h, w] on the model's device, one CPU generator a seed."""
        shape = (self.bundle.autoencoder.config.channels, *self.grid.latent_shape(*canvas.size, canvas.frames))
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws).to(self.bundle.device)

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> Iterator[np.ndarray]:
        """Latents [1, C, T, h, w] → uint8 frames [n, H, W, 3], a few at a time."""
        chunks = latents.to(self.bundle.dtype).split(DECODE_LATENTS, dim=2)
        for frames in self.bundle.autoencoder.decode_stream(chunks):
            yield _to_uint8(frames)

    def _frames(self, latents: Tensor) -> np.ndarray:
        return np.concatenate(list(self._decode(latents)))

    def _recipe(self, canvas: Canvas, seed: int, settings: Settings) -> Recipe:
        return Recipe(
            prompt=canvas.prompt,
            negative=canvas.negative,
            seed=seed,
            model=self.bundle.name,
            steps=settings.steps,
            guidance=settings.guidance,
            canvas=canvas.to_dict(),
        )


def _repeat(text: tuple[Tensor, Tensor], batch: int) -> tuple[Tensor, Tensor]:
    """One prompt's (states, mask) for every row of a batch."""
    states, mask = text
    return states.expand(batch, *states.shape[1:]), mask.expand(batch, *mask.shape[1:])


def _to_uint8(frames: Tensor) -> np.ndarray:
    """[1, 3, n, H, W] in -1..1 → uint8 [n, H, W, 3]."""
    pixels = (frames[0].float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).cpu().numpy()


def _device(name: str) -> torch.device:
    """Raises ModelError for a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type in DEVICES:
            torch.empty(1, device=device)
            return device
    except (RuntimeError, AssertionError, ImportError, NotImplementedError):
        pass
    raise ModelError(f"device {name[:40]!r} cannot be used here: try auto or cpu; `yozora doctor` lists what there is")


@contextmanager
def _memory_errors(canvas: Canvas) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch has an exception for GPUs only; on a CPU its allocator raises a bare RuntimeError
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in str(error):
            raise
        raise CanvasError(
            f"not enough memory for {canvas.frames} frames of {canvas.width}x{canvas.height}: "
            "ask for a smaller size, fewer seconds or fewer variations"
        ) from None
