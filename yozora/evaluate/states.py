"""The state of things in a clip: whether it changes as was asked for and stays so, and what a long video drifts by."""

from __future__ import annotations

import numpy as np

from yozora.clip import Clip
from yozora.evaluate.following import Prompt
from yozora.evaluate.inspector import Finding, inspect_clip, look_at_things
from yozora.models.inspector import Inspector

GROWN = 1.25  # times its area that a thing must have to have grown, and the inverse to have shrunk


def holds(inspector: Inspector, clip: Clip, prompt: Prompt, kind: str) -> tuple[bool, bool]:
    """Of a prompt in which a thing is to "recolour", "grow" or "shrink": whether the last quarter of the clip is so
    changed against the first, and whether each of its frames is."""
    quarter = max(1, len(clip.frames) // 4)
    first, last = Clip(clip.frames[:quarter], clip.fps), Clip(clip.frames[-quarter:], clip.fps)
    if kind == "recolour":
        wanted = prompt.scene.bodies[0].motion.colour_to
        before, after = (inspect_clip(part, inspector).colour for part in (first, last))
        each = [inspect_clip(Clip(frame[None], clip.fps), inspector).colour for frame in last.frames]
        return bool(before) and before != wanted and after == wanted, all(colour == wanted for colour in each)
    before, after = float(np.median(_areas(inspector, first))), _areas(inspector, last)
    changed = _shrunk if kind == "shrink" else _grown
    return changed(before, float(np.median(after))), all(changed(before, float(area)) for area in after)


def _grown(before: float, after: float) -> bool:
    return 0 < GROWN * before <= after


def _shrunk(before: float, after: float) -> bool:
    """A thing that is no longer seen has not shrunk: it is gone."""
    return 0 < GROWN * after <= before


def _areas(inspector: Inspector, clip: Clip) -> np.ndarray:
    """Cells of the largest thing in each frame, 0 where there is none: [T]."""
    return look_at_things(clip, inspector)[0].mask.sum((1, 2)).numpy()


def each_second(inspector: Inspector, clip: Clip) -> list[Finding]:
    """What each whole second shows."""
    rate = max(1, round(clip.fps))
    parts = [clip.frames[start : start + rate] for start in range(0, len(clip.frames) - rate + 1, rate)]
    return [inspect_clip(Clip(part, clip.fps), inspector) for part in parts]


def drift(clip: Clip) -> tuple[float, float]:
    """By how much the mean brightness and the mean colour of the last second are off those of the first, of 255."""
    rate = max(1, round(clip.fps))
    change = clip.frames[-rate:].mean((0, 1, 2)) - clip.frames[:rate].mean((0, 1, 2))
    return float(abs(change.mean())), float(np.linalg.norm(change))
