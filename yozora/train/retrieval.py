"""What shows a transformer clips beside its text (`yozora.models.retrieval`) learns from clips and their neighbours.

Each clip of a pool is shown under noise, as ever, beside others of the pool that show the same thing, and of these the
ones that have the most else in common with it: captions leave much open, which they fill in. A share of neighbours are
wrong ones, of anything, so that the model learns to ask the text which to believe, and a share are left out, so that it
does with fewer. The transformer and its text encoder stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.registry import RETRIEVAL
from yozora.models.retrieval import Beside, RetrievalAdapter, RetrievalConfig, moments_of
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import Bucket, FlowLessons
from yozora.train.data import PooledClip, pick_bucket, stream
from yozora.train.flow import flow_lesson
from yozora.train.lessons import Captioned, PoolBatches
from yozora.train.loop import fit, pick_device
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.world import Scene
from yozora.world.describe import FACTS, facts

AGREE = (("count", "shape", "colour"), ("shape", "colour"), ("shape",))  # what neighbours have in common at least
FIRM, LOOSE = 2, 1  # how much what a thing does, and all else, counts besides
ENOUGH = 4  # the most like of so many, a clip's neighbours are
HELD_OUT = 16  # one clip of so many is not learned from
COMPARED = 4  # batches of those
KINDS = {"none": (0.0, 1.0), "right": (0.0, 0.0), "wrong": (1.0, 0.0)}  # of clips that are shown: wrong and left out


class RetrievalStage(FlowLessons):
    """`yozora train retrieval`: what shows the transformer of `start_from`, a model folder or an exported run, clips.

    Each is shown `model.clips` others, a share (`wrong`) of which are any, and a share (`drop_clips`) left out. At
    first a share (`own`) of them are the clip itself, of which most is to be learned; by the middle of the run none.
    [model] are settings of `yozora.models.retrieval.RetrievalConfig`.
    """

    start_from: Path
    own: float = Field(default=0.5, ge=0, le=1)
    wrong: float = Field(default=0.25, ge=0, le=1)
    drop_clips: float = Field(default=0.2, ge=0, lt=1)
    model: dict[str, Any] = Field(default_factory=dict)

    def model_post_init(self, _context: Any) -> None:
        if self.packed or self.layout or self.prior:
            raise ValueError("packed, layout and prior are for `yozora train transformer` only")


def train_retrieval(config: RetrievalStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged adapter. Raises ConfigError, ModelError."""
    return fit(RetrievalTask(config), config.run, config.optim, resume, settings=settings_of(config))


class Lesson(NamedTuple):
    """A batch, the latents `[B, K, C, M, h, w]` of the clips that are shown beside each, and whether they are, bool
    `[B, K]`."""

    own: Captioned
    clips: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Neighbours(PoolBatches):
    """Clips, each with `count` neighbours, of which `moments` frames are kept."""

    count: int = 1
    moments: int = 1

    def lesson(self, step: int, kind: str = "") -> Lesson:
        """The lesson of a step; with a `kind` (of KINDS) one of clips that are not learned from."""
        config = self.config
        assert isinstance(config, RetrievalStage)
        random = np.random.default_rng((config.run.seed, step))
        bucket = pick_bucket(config.buckets, random)
        pool, among = self.pool.clips_of(bucket), self.alike(bucket)
        here = [n for n in range(len(pool)) if (n % HELD_OUT == 0) == bool(kind)]
        if not here:
            raise ConfigError(f"{config.pool} has too few clips of {bucket.width}x{bucket.height}: make more of them")
        chosen = random.choice(here, size=bucket.batch)
        drawn = [self.pool.take(pool[n], bucket.frames) for n in chosen]
        captions, layouts = self._say(drawn, random), self._layouts(drawn)
        wrong, dropped = KINDS.get(kind, (config.wrong, config.drop_clips))
        own = 0.0 if kind else config.own * max(0.0, 1 - 2 * step / config.run.steps)
        clips = torch.stack([self._beside(int(n), pool, among, (own, wrong), random) for n in chosen])
        shown = torch.from_numpy(random.random((bucket.batch, self.count)) >= dropped)
        latents = torch.stack([clip.latents.float() for clip in drawn])
        return Lesson(Captioned(latents, captions, None if layouts is None else torch.stack(layouts)), clips, shown)

    def alike(self, bucket: Bucket) -> list[np.ndarray]:
        """Of each clip of a bucket, which others are its neighbours."""
        key = (bucket.width, bucket.height, bucket.frames, bucket.exact)
        if key not in self._alike:
            self._alike[key] = neighbours([self._facts(clip) for clip in self.pool.clips_of(bucket)])
        return self._alike[key]

    @cached_property
    def _alike(self) -> dict[tuple[int, int, int, bool], list[np.ndarray]]:
        return {}

    @cached_property
    def _known(self) -> dict[tuple[Path, int], dict[str, str]]:
        return {}

    def _facts(self, clip: PooledClip) -> dict[str, str]:
        """What there is to see in a clip. Raises ConfigError for footage."""
        key = (clip.file, clip.row)
        if key not in self._known:
            if '"captions"' in clip.line[:4096] and '"bodies"' not in clip.line:
                raise ConfigError("retrieval needs a pool of rendered clips, whose facts are known, not of footage")
            self._known[key] = facts(Scene.from_json(clip.line))
        return self._known[key]

    def _beside(
        self,
        number: int,
        pool: Sequence[PooledClip],
        alike: Sequence[np.ndarray],
        shares: tuple[float, float],
        random: np.random.Generator,
    ) -> Tensor:
        """The latents `[K, C, moments, h, w]` of what one clip is shown: of whole clips, of whatever length. `shares`
        of these are the clip itself, and of the others wrong ones."""
        own, wrong = shares
        right = alike[number]
        found = []
        for _ in range(self.count):
            off = random.random() < wrong or not len(right)
            other = int(random.integers(len(pool))) if off else int(right[random.integers(len(right))])
            if random.random() < own:
                other = number
            found.append(moments_of(self.pool.latents_of(pool[other]).float(), self.moments))
        return torch.stack(found)


class Lessons:
    """See `yozora.train.data.Source`."""

    def __init__(self, source: Neighbours) -> None:
        self.source = source

    def batch(self, step: int) -> Lesson:
        return self.source.lesson(step)


def neighbours(shown: Sequence[dict[str, str]]) -> list[np.ndarray]:
    """Of clips that show these facts, which others each may be shown: the ENOUGH that have most in common with it of
    those that agree in the most of AGREE; fewer where there are no more."""
    weights = {name: FIRM if name in ("motion", "direction") else LOOSE for name in FACTS}
    groups: list[dict[tuple[str, ...], list[int]]] = []
    for names in AGREE:
        of: dict[tuple[str, ...], list[int]] = {}
        for number, known in enumerate(shown):
            of.setdefault(tuple(known[name] for name in names), []).append(number)
        groups.append(of)
    found = []
    for number, known in enumerate(shown):
        best: list[int] = []
        for names, of in zip(AGREE, groups, strict=True):
            others = [n for n in of[tuple(known[name] for name in names)] if n != number and n not in best]
            alike = {
                n: sum(weight * (shown[n][name] == known[name]) for name, weight in weights.items()) for n in others
            }
            best += sorted(others, key=lambda n: -alike[n])[: ENOUGH - len(best)]
            if len(best) == ENOUGH:
                break
        found.append(np.array(best, dtype=np.int64))
    return found


class RetrievalTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: RetrievalStage) -> None:
        self.config = config
        torch.manual_seed(config.run.seed)
        device = pick_device(config.run.device)
        self.autoencoder = load_module(Autoencoder, config.autoencoder, device)
        self.text = load_module(TextEncoder, config.start_from / "text_encoder", device).requires_grad_(False)
        self.base = load_module(Transformer, config.start_from / "transformer", device).requires_grad_(False)
        self.model: RetrievalAdapter = RetrievalAdapter(
            build(RetrievalConfig, {"base": self.base.config} | config.model)
        )
        self.source = Neighbours(config, count=self.model.config.clips, moments=self.model.config.moments)

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return False  # as of any low-rank change

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Lesson]:
        return stream(Lessons(self.source), start, self.config.run.steps, self.config.run.workers)

    def size(self, batch: Lesson) -> int:
        return len(batch.own.captions)

    def loss(self, batch: Lesson, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """See `flow_lesson`."""
        return self._judged(self.model, batch, generator)

    def _judged(
        self, model: RetrievalAdapter, batch: Lesson, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        device = next(self.base.parameters()).device
        with torch.no_grad():
            states, mask = self.text(batch.own.captions)
            text = self.base.prepare_text(states)
        looked = model.look(self.base, batch.clips.to(device), batch.shown.to(device))

        def predict(noisy: Tensor, levels: Tensor) -> Tensor:
            return Beside(self.base)(noisy, levels, text, mask, looked)

        return flow_lesson(self.config, batch.own, device, generator, predict)

    @torch.no_grad()
    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """The loss of clips that are not learned from, shown nothing, right clips and wrong ones."""
        assert isinstance(model, RetrievalAdapter)
        lines = []
        for kind in KINDS:
            losses = []
            for number in range(COMPARED):
                generator = torch.Generator().manual_seed(number)
                losses.append(self._judged(model, self.source.lesson(number, kind), generator)[1]["flow"])
            lines.append(f"shown {kind}: loss {sum(losses) / len(losses):.4f}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder / RETRIEVAL, torch.bfloat16)
