"""What is most probable of a clip, as a network weighs all that is seen of it (see `yozora.evaluate.evidence`). It was
trained on renders, by `yozora train captioner`, and never sees a prompt."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from yozora.evaluate.evidence import Sight, gather
from yozora.evaluate.inspector import Look, load_inspector
from yozora.evaluate.reading import load_reader
from yozora.models.folder import load_module
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader
from yozora.models.weigher import MAIN, Weigher

WEIGHTS = Path(__file__).parent / "weights" / "weigher"
SURE = 0.35  # probability from which on a name is said: of 400 renders that no bench asks, 92 % of such names are right


class Eyes(NamedTuple):
    """The networks that read."""

    inspector: Inspector
    reader: Reader
    weigher: Weigher


class Likely(NamedTuple):
    """What is most probable of something, and how probable that is."""

    name: str
    chance: float


def load_eyes(folder: str | Path | None = None) -> Eyes:
    """The shipped networks, or those that `yozora train captioner` wrote to a folder. Raises ModelError."""
    if folder is None:
        return Eyes(load_inspector(), load_reader(), load_weigher())
    folder = Path(folder)
    return Eyes(load_inspector(folder / "inspector"), load_reader(folder / "reader"), load_weigher(folder / "weigher"))


def load_weigher(folder: str | Path = WEIGHTS) -> Weigher:
    """The shipped weigher, or another. Raises ModelError for a folder that is missing or broken."""
    return _load(Path(folder))


@lru_cache(maxsize=2)
def _load(folder: Path) -> Weigher:
    return load_module(Weigher, folder).eval().requires_grad_(False)


@torch.no_grad()
def weigh(sight: Sight, weigher: Weigher) -> tuple[dict[str, Likely], Look]:
    """What is told of each of the weigher's heads, and the look that is probably the main thing's."""
    told = weigher(*gather(sight))
    names = {}
    for head, values in weigher.names.items():
        chances = told[head][0].exp()
        names[head] = Likely(values[int(chances.argmax())], float(chances.max()))
        if head == "filmed" and names[head].chance < SURE:  # the way, where only its direction is not sure
            kinds = dict.fromkeys(value.partition(" ")[0] for value in values)
            whole = {
                kind: sum(float(c) for c, v in zip(chances, values, strict=True) if v.startswith(kind))
                for kind in kinds
            }
            kind = max(whole, key=whole.__getitem__)
            names[head] = Likely(kind, whole[kind])
    seen = [bool(look.mask.any()) for look in sight.looks]
    likely = told[MAIN][0].masked_fill(~torch.tensor(seen), float("-inf"))
    return names, sight.looks[int(likely.argmax())]
