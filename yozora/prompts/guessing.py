"""What the tables of words do not know, a small network guesses: facts that a prompt states by the words left unread.

The network (`yozora train rewriter`) has read prompts that were made up endlessly. It is asked about words by which
no fact was read, and believed only where these words are why: without them it does not say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from yozora.world.words import words_of

WEIGHTS = Path(__file__).parent / "weights" / "rewriter"
SURE = 0.8  # probability from which on a fact is taken
GUESSED = (
    "colour",
    "motion",
    "direction",
)  # of others it is too sure: it takes a mouse for a house, and that for a city


class Chances(Protocol):
    """Reads facts, and says how sure it is."""

    def chances(self, text: str) -> dict[str, tuple[str, float]]:
        """Each fact that a text states, by name: its value, and how probable that is."""
        ...


class Guess(NamedTuple):
    """A fact's value, and the words that it was read by."""

    value: str
    words: tuple[str, ...]


def guess(network: Chances, text: str, unread: Sequence[str], facts: Mapping[str, str]) -> dict[str, Guess]:
    """The facts, by name, that the `unread` words of a text state besides the `facts` that were read."""
    if not unread:
        return {}
    said, silent = network.chances(text), network.chances(_without(text, unread))
    found = {}
    for name, (value, chance) in said.items():
        stated_anyway = silent.get(name, ("", 0.0))[0] == value
        if name not in GUESSED or name in facts or chance < SURE or stated_anyway:
            continue
        why = [word for word in unread if network.chances(_without(text, [word])).get(name, ("", 0.0))[0] != value]
        found[name] = Guess(value, tuple(why or unread))
    return found


@lru_cache(maxsize=1)
def shipped() -> Chances | None:
    """The network that ships; None where it does not."""
    if not WEIGHTS.is_dir():
        return None
    from yozora.models.folder import load_module
    from yozora.models.prompt_reader import PromptReader

    return load_module(PromptReader, WEIGHTS).requires_grad_(False)


def _without(text: str, words: Sequence[str]) -> str:
    gone = {word.lower() for word in words}
    return " ".join(part for part in text.replace("-", " ").split() if not gone & {w.lower() for w in words_of(part)})
