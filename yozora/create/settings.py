"""How a canvas is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from yozora.create.limits import check_guidance, check_steps, shown
from yozora.diffusion import SOLVERS
from yozora.errors import CanvasError


@dataclass(frozen=True)
class Settings:
    """How a canvas is sampled, complete: model evaluations, guidance (1 = none), solver, and
    whether guidance is projected (see `yozora.diffusion.guidance`)."""

    steps: int
    guidance: float
    solver: str
    projected: bool = False

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_guidance(self.guidance)
        check_solver(self.solver)
        for name, kind in (("steps", int), ("guidance", float)):  # a recipe is written in Python's own numbers
            object.__setattr__(self, name, kind(getattr(self, name)))


def check_solver(solver: str) -> None:
    """Raises CanvasError for one that there is not."""
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise CanvasError(f"unknown solver {shown(solver)}; known: {', '.join(SOLVERS)}")
