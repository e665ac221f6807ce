"""Training the text encoder before it meets any picture: it learns to read the facts out of captions.

The world's captions come with what they state (colour, shape, motion, camera, ...). One learned query a fact attends to
the states and names its value, or says that the caption is silent about it. That costs minutes, and the diffusion
transformer then starts from states that already tell a red box behind a blue ball from the reverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models.folder import save_module
from yozora.models.text import TextEncoder, TextEncoderConfig, train_tokenizer
from yozora.train.config import TextStage
from yozora.train.data import HELD_OUT_SEEDS, load_mix, pick, stream
from yozora.train.loop import fit
from yozora.train.resumed import settings_of
from yozora.train.settings import build
from yozora.world import describe, describe_with_facts, sample_scene
from yozora.world import scene as world
from yozora.world.describe import FACTS

TOKENIZER_CAPTIONS = 4000
CAPTIONS_PER_SCENE = 4  # staging a scene costs more than describing it
VOCABULARY: dict[str, tuple[str, ...]] = {  # the values that a fact can have; a `second_` fact has those of the first
    "count": ("1", "2", "3", "4", "5"),
    "shape": world.SHAPES,
    "colour": tuple(world.COLOURS),
    "colour_to": tuple(world.COLOURS),
    "size": tuple(world.SIZES),
    "material": world.MATERIALS,
    "motion": world.MOTIONS,
    "direction": tuple(world.DIRECTIONS),
    "ground": world.GROUNDS,
    "time": world.TIMES,
    "weather": world.WEATHERS,
    "camera": world.CAMERAS,
    "camera_direction": tuple(dict.fromkeys(d for ds in world.CAMERA_DIRECTIONS.values() for d in ds if d)),
    "style": world.STYLES,
}
VALUES = {
    name: VOCABULARY[name.removeprefix("second_")] for name in FACTS if name.removeprefix("second_") in VOCABULARY
}


def train_text_encoder(config: TextStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights and the vocabulary."""
    return fit(TextTask(config), config.run, config.optim, resume, settings=settings_of(config))


class Read(NamedTuple):
    """Captions, and for each fact the index of its value, 0 where the caption does not say: `[B, facts]`."""

    captions: list[str]
    values: Tensor


@dataclass(frozen=True)
class CaptionBatches:
    """Captions of fresh scenes; nothing is rendered."""

    config: TextStage
    first_seed: int = 0

    def batch(self, step: int) -> Read:
        random = np.random.default_rng((self.config.run.seed, step))
        mix = load_mix(self.config.mix)
        captions, values = [], []
        for seed in random.integers(0, HELD_OUT_SEEDS, -(-self.config.batch // CAPTIONS_PER_SCENE)):
            scene = sample_scene(int(seed) + self.first_seed, mix)
            for _ in range(CAPTIONS_PER_SCENE):
                language, detail = pick(self.config.languages, random), pick(self.config.details, random)
                caption, facts = describe_with_facts(scene, language, detail, int(random.integers(1 << 31)))
                captions.append(caption)
                values.append([1 + v.index(facts[name]) if facts.get(name) in v else 0 for name, v in VALUES.items()])
        return Read(captions, torch.tensor(values))


class Reader(nn.Module):
    """One query a fact, attending to the text states, and a classifier over its values. Only used in this stage."""

    def __init__(self, width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(VALUES), width) / width**0.5)
        self.classify = nn.ModuleList(nn.Linear(width, 1 + len(values)) for values in VALUES.values())

    def forward(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        """States `[B, L, W]`, mask `[B, L]` → for each fact logits `[B, 1 + values]`."""
        scores = (states.float() @ self.queries.T).masked_fill(~mask[..., None], float("-inf"))
        pooled = torch.einsum("blf,blw->fbw", scores.softmax(1), states.float())
        return [classify(x) for classify, x in zip(self.classify, pooled, strict=True)]


class TextTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: TextStage):
        self.config = config
        torch.manual_seed(config.run.seed)
        tokenizer = train_tokenizer(_sample_captions(config), config.vocabulary)
        encoder = TextEncoder(build(TextEncoderConfig, {"vocab_size": config.vocabulary, **config.model}), tokenizer)
        self.model = nn.ModuleDict({"text": encoder, "reader": Reader(encoder.config.width)})

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and ".blocks." in name

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Read]:
        run = self.config.run
        return stream(CaptionBatches(self.config), start, run.steps, run.workers)

    def size(self, batch: Read) -> int:
        return len(batch.captions)

    def loss(self, batch: Read, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        values = batch.values.to(next(self.model.parameters()).device)
        logits = self._read(self.model, batch.captions)
        losses = [F.cross_entropy(x, y) for x, y in zip(logits, values.T, strict=True)]
        right = torch.stack([(x.argmax(1) == y).float().mean() for x, y in zip(logits, values.T, strict=True)])
        return torch.stack(losses).mean(), {"accuracy": right.mean().item()}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """How often each fact is read rightly in 512 held-out captions, as a table."""
        config = self.config.model_copy(update={"batch": 512})
        batch = CaptionBatches(config, first_seed=HELD_OUT_SEEDS).batch(0)
        device = next(model.parameters()).device
        with torch.no_grad():
            logits = self._read(model, batch.captions)
        lines = [
            f"{name:18s} {100 * (x.argmax(1) == y).float().mean().item():.1f} %"
            for name, x, y in zip(VALUES, logits, batch.values.to(device).T, strict=True)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model["text"], folder, torch.bfloat16)  # type: ignore[index]

    @staticmethod
    def _read(model: nn.Module, captions: list[str]) -> list[Tensor]:
        states, mask = model["text"](captions)  # type: ignore[index]
        return model["reader"](states, mask)  # type: ignore[index]


def _sample_captions(config: TextStage) -> list[str]:
    """Captions in every language and detail, for the vocabulary."""
    random = np.random.default_rng(config.run.seed)
    mix = load_mix(config.mix)
    scene, captions = None, []
    for index in range(TOKENIZER_CAPTIONS):
        if scene is None or index % CAPTIONS_PER_SCENE == 0:
            scene = sample_scene(int(random.integers(HELD_OUT_SEEDS)), mix)
        language = list(config.languages)[index % len(config.languages)]
        captions.append(describe(scene, language, pick(config.details, random), seed=index))
    return captions
