"""What a run may ask for besides its canvas, with any model: how many steps, how much guidance, which seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from yozora.errors import CanvasError

MAX_STEPS = 1000
MAX_GUIDANCE = 50.0
MAX_SEED = 2**63 - 1
MAX_VARIATIONS = 64


def check_steps(steps: int) -> None:
    """Raises CanvasError for a number of model evaluations that is out of range."""
    if not 1 <= steps <= MAX_STEPS:
        raise CanvasError(f"{steps} steps cannot be taken: use 1 to {MAX_STEPS}")


def check_guidance(guidance: float) -> None:
    """Raises CanvasError for a guidance that is out of range."""
    if not (math.isfinite(guidance) and 0 <= guidance <= MAX_GUIDANCE):
        raise CanvasError(f"guidance {guidance:g} is out of range: use 0 to {MAX_GUIDANCE:g} (1 is none)")


def check_variations(count: int) -> None:
    """Raises CanvasError for a batch that is empty or too large."""
    if not 1 <= count <= MAX_VARIATIONS:
        raise CanvasError(f"{count} variations cannot be made at once: use 1 to {MAX_VARIATIONS}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises CanvasError for seeds, one a variation, that are too many, none, or out of range."""
    check_variations(len(seeds))
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise CanvasError(f"seed {seed} is out of range: use 0 to {MAX_SEED}")
