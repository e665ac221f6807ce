"""Clips that the model is shown beside the prompt while it makes a video: they are looked at, never copied into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yozora.create.canvas import Canvas
from yozora.create.limits import check_number
from yozora.create.settings import Settings
from yozora.diffusion import FLOW_MAP
from yozora.diffusion.beside import ShownClips
from yozora.errors import CanvasError
from yozora.models.registry import Bundle

MAX_GUIDANCE = 20.0


@dataclass(frozen=True, eq=False)
class Beside:
    """Clean latents `[C, T, h, w]` of the model's own autoencoder, one or several, the most like first; all of one
    shape. `guidance` (above 0) says how much they count, 1 as in training; `sources` name them in recipes. Raises
    CanvasError."""

    latents: Sequence[Tensor]
    guidance: float = 1.0
    sources: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_retrieval_guidance(self.guidance)
        if not self.latents or self.guidance == 0:
            raise CanvasError("no clip is shown: leave it out")
        shapes = {tuple(each.shape) for each in self.latents}
        if len(shapes) > 1 or len(next(iter(shapes))) != 4:
            raise CanvasError(f"clips that are shown together have latents [C, T, h, w] of one shape, not {shapes}")

    def check(self, canvas: Canvas, bundle: Bundle, settings: Settings) -> None:
        """Raises CanvasError where this model, or this way to sample, knows no such clips."""
        if reason := why_not(bundle, settings):
            raise CanvasError(reason)
        if len(canvas.cues) > 1:
            raise CanvasError("clips are shown beside one prompt, not several")
        assert bundle.retrieval is not None
        most, channels = bundle.retrieval.config.clips, bundle.autoencoder.config.channels
        if len(self.latents) > most:
            raise CanvasError(f"{bundle.name} can be shown {most} clips, not {len(self.latents)}")
        if self.latents[0].shape[0] != channels:
            raise CanvasError(f"the clips' latents have {self.latents[0].shape[0]} channels, the model's {channels}")

    def on(self, bundle: Bundle) -> ShownClips:
        """As sampling takes them."""
        assert bundle.retrieval is not None
        latents = torch.stack([each.to(bundle.device, torch.float32) for each in self.latents])
        return ShownClips(bundle.retrieval, latents, self.guidance)

    def to_dict(self) -> dict[str, Any]:
        """For a recipe."""
        return {"beside": list(self.sources), "retrieval_guidance": self.guidance}


def why_not(bundle: Bundle, settings: Settings) -> str:
    """Why a model cannot be shown clips, sampled so; "" where it can."""
    if bundle.retrieval is None:
        return f"the model {bundle.name!r} was not trained to be shown clips (`yozora train retrieval`)"
    if settings.solver == FLOW_MAP:
        return f"few-step weights ({FLOW_MAP}) were not trained to be shown clips"
    if bundle.reuse:
        return "steps that use the work of the last one again (--reuse) cannot be shown clips"
    if bundle.interval != (0.0, 1.0):
        return "guidance at some noise levels only (--interval) cannot be had beside clips"
    if bundle.team is not None:
        return "processes that share the tokens of a clip cannot be shown others"
    return ""


def check_retrieval_guidance(guidance: float) -> None:
    """Raises CanvasError for what is no scale of what clips change."""
    check_number(guidance, "retrieval guidance")
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise CanvasError(f"retrieval guidance is from 0 (none) to {MAX_GUIDANCE:g}, not {guidance:g}")
