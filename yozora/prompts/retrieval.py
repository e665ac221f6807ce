"""What a library has to do with a prompt: captions that fill in what it leaves open, and a clip to begin from.

Facts are read in the prompt and compared with those of the clips (`agree`): of those that fit, the nearest in meaning
count. A clip that disagrees in count, shape, colour or motion is never begun from, however near its caption is. One
that shows another ground than is asked for is put onto that, for grounds fill a picture and show through the noise:
what clips on its own have in common is exchanged for what clips on the other have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yozora.create.begin import SHARE, Begin
from yozora.create.beside import Beside, why_not
from yozora.create.canvas import Canvas
from yozora.create.generator import Generator
from yozora.create.settings import Settings
from yozora.errors import CanvasError, ConfigError
from yozora.prompts.agree import FIRM, USUAL, disagreement, likeness, other_ground, way_of, with_count
from yozora.prompts.lexicon import study
from yozora.prompts.library import Copy, Library, Match, embed_texts
from yozora.prompts.rewriting import Similar
from yozora.prompts.stock import Coder

CLOSE = 0.4  # cosine of meanings, from which on a clip that agrees with a prompt is begun from
LOOKED_AT = 64  # clips that are compared with a prompt by their facts
GROUNDING = 8  # captions that a rewriter is shown
ON_GROUND = (8, 48)  # clips, at least and at most, that say what a ground looks like


@dataclass(frozen=True)
class Found:
    """A clip to begin from, or the reason why there is none."""

    match: Match | None = None
    reason: str = ""


@dataclass(frozen=True)
class WarmStart:
    """What sampling begins from; `begin` is None where it begins from noise, for `reason`. `ground`: that which the
    clip was put onto, which has another; "" where it stayed on its own."""

    begin: Begin | None = None
    match: Match | None = None
    reason: str = ""
    ground: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What a recipe says besides the `Begin`'s own."""
        if self.match is None:
            return {"reason": self.reason}
        said = {"caption": self.match.caption, "similarity": round(self.match.similarity, 4)}
        return said | ({"ground": self.ground} if self.ground else {})


class Similars:
    """Finds captions for a rewriter: see `yozora.prompts.rewriting.Rewriter`."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def __call__(self, prompt: str) -> list[Similar]:
        """The captions nearest in meaning to a prompt, of clips that show what it states where that can be read."""
        matches = self.library.search(prompt, GROUNDING, _stated(read_facts(prompt)))
        return [Similar(caption=match.caption, facts=match.facts, source=match.source) for match in matches]


def read_facts(prompt: str) -> dict[str, str]:
    """The facts that a prompt states, with "count" where it tells of a thing."""
    return with_count(study(prompt).facts, prompt)


def search_by_facts(library: Library, text: str, count: int = 5) -> list[Match]:
    """The clips that show what a text states, the nearest in meaning first, and behind them the nearest of all others:
    embeddings alone tell a red ball from a blue one, and left from right, only dimly. Raises ConfigError."""
    if count < 1:
        raise ConfigError(f"{count} clips cannot be searched for: use 1 or more")
    vector, stated = embed_texts([text])[0], _stated(read_facts(text))
    first = library.search_vector(vector, count, stated) if stated else []
    if len(first) == count:
        return first
    known = {match.source for match in first}
    others = [match for match in library.search_vector(vector, count + len(first)) if match.source not in known]
    return [*first, *others[: count - len(first)]]


def find_close(library: Library, prompt: str, size: tuple[int, int], frames: int) -> Found:
    """The clip of a size (width, height) and at least so many frames that may stand for what a prompt asks for: of
    those that agree with it, the one that is most like it in what may differ, and then in meaning. None for a prompt of
    which not every word was read: what it says besides could not be compared."""
    asked = read_facts(prompt)
    if "shape" not in asked:
        return Found(reason="nothing in the prompt can be compared with a clip's facts")
    if unread := study(prompt).unread:
        return Found(reason=_unread(unread))
    matches = library.search(prompt, LOOKED_AT, _stated(asked))
    fitting = [match for match in matches if match.size == size and match.frames >= frames]
    if not fitting:
        return Found(reason=_why_none(library, prompt, asked, size, frames))
    agreeing = [match for match in fitting if not disagreement(asked, match.facts)]
    if not agreeing:
        return Found(reason=f"the nearest clip disagrees in {disagreement(asked, fitting[0].facts)}")
    best = max(agreeing, key=lambda m: (not other_ground(asked, m.facts), likeness(asked, m.facts), m.similarity))
    if best.similarity < CLOSE:
        return Found(reason=f"no clip is close: the nearest that agrees is {best.similarity:.2f} near")
    return Found(best)


def warm_start(library: Library, canvas: Canvas, generator: Generator, version: str, share: float = SHARE) -> WarmStart:
    """What a canvas may be begun from, of a library, by a generator whose autoencoder is of `version`. A canvas that
    cannot be, another version or `share` 0 begin from noise."""
    if share == 0:
        return WarmStart(reason="it was not asked for")
    if reason := library.check_latents(version):
        return WarmStart(reason=reason)
    if len(canvas.cues) != 1 or canvas.anchors or canvas.loop:
        return WarmStart(reason="only a video of one prompt, made from text, can begin from another clip")
    if unread := study(canvas.cues[0].asked).unread:  # a rewriting may leave out what it did not read
        return WarmStart(reason=_unread(unread))
    found = find_close(library, canvas.prompt, canvas.size, canvas.frames)
    if found.match is None:
        return WarmStart(reason=found.reason)
    ground = other_ground(read_facts(canvas.prompt), found.match.facts)
    try:
        begin = Begin(begun_from(library, found.match.source, ground), share, found.match.source)
        begin.check(canvas, generator.native, generator.bundle.autoencoder.config.channels)
    except (CanvasError, ConfigError) as error:
        return WarmStart(reason=str(error))
    return WarmStart(begin, found.match, ground=ground)


def begun_from(library: Library, source: str, ground: str = "") -> Tensor:
    """The latents of a clip, float16 `[C, T, h, w]`; put onto a `ground`, if one is given. Raises ConfigError where
    there is no such clip, or where too few clips are on either ground to say what that looks like."""
    latents = library.latents(source)
    if not ground:
        return latents
    match = library.match(source)
    onto, off = (_ground(library, name, match) for name in (ground, match.facts.get("ground", "")))
    return (latents.float() + onto - off).half()


def _ground(library: Library, ground: str, match: Match) -> Tensor:
    """What clips on a ground that are filmed as another is have in common, float32 `[C, 1, h, w]`."""
    fewest, most = ON_GROUND
    usual = {name: match.facts.get(name, usual) for name, usual in USUAL.items()}
    found = library.search(f"A thing on the {ground}.", 8 * most, {"ground": ground})
    alike = [
        one.source
        for one in found
        if one.size == match.size and all(one.facts.get(name, USUAL[name]) == said for name, said in usual.items())
    ]
    if len(alike) < fewest:
        raise ConfigError(f"too few clips of the library show what the ground is like ({ground or 'unknown'})")
    shown = [each.float().mean(1, keepdim=True) for each in library.read(alike[:most]).values()]
    return torch.stack(shown).mean(0)


@dataclass(frozen=True)
class ClipsBeside:
    """What the model is shown beside a prompt; `beside` is None where it is nothing, for `reason`."""

    beside: Beside | None = None
    reason: str = ""


def clips_beside(
    library: Library, canvas: Canvas, generator: Generator, settings: Settings, version: str, guidance: float = 1.0
) -> ClipsBeside:
    """Which clips of a library a generator, whose autoencoder is of `version`, is shown beside the prompt of a canvas:
    as many as it knows, of those that show what the prompt states the nearest in meaning; all of the shape of the
    first. `guidance` 0: none."""
    if guidance == 0:
        return ClipsBeside(reason="it was not asked for")
    if reason := library.check_latents(version) or why_not(generator.bundle, settings):
        return ClipsBeside(reason=reason)
    if len(canvas.cues) != 1:
        return ClipsBeside(reason="clips are shown beside one prompt only")
    asked = read_facts(canvas.prompt)
    if "shape" not in asked:
        return ClipsBeside(reason="nothing in the prompt can be compared with a clip's facts")
    matches = library.search(canvas.prompt, LOOKED_AT, _stated(asked))
    fitting = [match for match in matches if not other_ground(asked, match.facts)]
    agreeing = [match for match in fitting if not disagreement(asked, match.facts)]
    if not agreeing:
        return ClipsBeside(reason="no clip of the library shows what the prompt states")
    assert generator.bundle.retrieval is not None
    first = agreeing[0]
    alike = [match for match in agreeing if (match.size, match.frames) == (first.size, first.frames)]
    sources = [match.source for match in alike[: generator.bundle.retrieval.config.clips]]
    return ClipsBeside(Beside([library.latents(source) for source in sources], guidance, sources))


def nearest_copy(library: Library, coder: Coder, frames: np.ndarray) -> Copy | None:
    """Which clip of a library a video's frames uint8 `[T, H, W, 3]` are most like, but for those at the end that fill
    no latent frame; None where it has none of its size and length."""
    whole = coder.native.grid.temporal * ((len(frames) - 1) // coder.native.grid.temporal)
    return library.nearest_copy(coder.encode(frames[: 1 + whole]))


def coder_of(generator: Generator, version: str) -> Coder:
    """A generator's own autoencoder."""
    bundle = generator.bundle
    return Coder(bundle.name, version, generator.native, bundle.autoencoder, bundle.device)


def _stated(asked: Mapping[str, str]) -> dict[str, str]:
    """Those of the facts by which a library is searched: what a clip must show to agree."""
    where = {name: asked[name] for name in ("count", *FIRM) if name in asked}
    for which in ("", "second_"):
        motion, direction = way_of(asked, which) or ("", "")
        if motion and motion != "still":
            where[f"{which}motion"] = motion
        if direction:
            where[f"{which}direction"] = direction
    return where


def _unread(words: Sequence[str]) -> str:
    """Why a prompt is not compared with clips of which some words were not read."""
    return f"no clip can be known to agree with what was not read of the prompt ({', '.join(words)[:80]})"


def _why_none(library: Library, prompt: str, asked: Mapping[str, str], size: tuple[int, int], frames: int) -> str:
    """In what the clip whose caption is nearest in meaning is another."""
    nearest: Sequence[Match] = library.search(prompt, 1)
    if not nearest:
        return "the library is empty"
    if said := disagreement(asked, nearest[0].facts):
        return f"the nearest clip disagrees in {said}"
    width, height = size
    return f"no clip that fits is of {width}x{height} and {frames} frames or more"
