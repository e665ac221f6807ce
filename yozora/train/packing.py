"""Packing: clips of any size and length fill sequences of a given number of tokens, with hardly a gap.

Packs are planned some at a time: so many clips are drawn as fill them nearly, and put where they fit best, the largest
first. What then fits nowhere is left out, which is little. Which clips a step is made of follows from the seed and the
step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from yozora.errors import ConfigError

TOGETHER = 16  # packs that are planned at a time
NEARLY = 0.995  # of their tokens, how many are drawn


@dataclass(frozen=True)
class Packer:
    """Fills packs of `budget` tokens with clips of several kinds: of kind i, `tokens[i]` each, drawn by `weights[i]`.
    Raises ConfigError where a clip does not fit into a pack."""

    budget: int
    tokens: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if (most := max(self.tokens)) > self.budget:
            raise ConfigError(f"packed: a clip of {most} tokens does not fit into {self.budget}; give more tokens")

    def pack(self, seed: int, step: int) -> list[int]:
        """The kinds of clips in the pack of a step, equal ones side by side."""
        group, place = divmod(step, TOGETHER)
        return sorted(_plans(self, seed, group)[place])

    def plan(self, random: np.random.Generator) -> list[list[int]]:
        """TOGETHER packs. They are shuffled, so that no step is made of large clips alone."""
        chance = np.array(self.weights) / sum(self.weights)
        drawn, total = [], 0
        while True:
            kind = int(random.choice(len(chance), p=chance))
            total += self.tokens[kind]
            if total > NEARLY * TOGETHER * self.budget:
                break
            drawn.append(kind)
        packs: list[list[int]] = [[] for _ in range(TOGETHER)]
        left = np.full(TOGETHER, self.budget)
        for kind in sorted(drawn, key=lambda kind: -self.tokens[kind]):
            room = left - self.tokens[kind]
            if (room >= 0).any():
                best = int(np.where(room >= 0, room, self.budget + 1).argmin())
                packs[best].append(kind)
                left[best] = room[best]
        for pack in packs:
            if not pack:  # where hardly one clip fits into each, some get none
                pack.append(int(random.choice(len(chance), p=chance)))
        random.shuffle(packs)
        return packs


@lru_cache(maxsize=4)
def _plans(packer: Packer, seed: int, group: int) -> list[list[int]]:
    """A group's packs; its steps come one after the other and need them planned once."""
    return packer.plan(np.random.default_rng((seed, group, 0)))


def useful(packer: Packer, seed: int, steps: int) -> float:
    """Of the tokens that so many packs have room for, the part that is filled."""
    filled = sum(packer.tokens[kind] for step in range(steps) for kind in packer.pack(seed, step))
    return filled / (steps * packer.budget)
