"""Training the rewriter: it learns to read the facts out of prompts as people write them, in four languages.

Scenes of the world are asked for in many ways (`yozora.world.words.asker`), and which facts a prompt states is known
exactly. The caption is then told from the facts (`yozora.world.words.partial`) and need not be learned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from yozora.models.folder import load_module, save_module
from yozora.models.prompt_reader import UNSAID, PromptReader, PromptReaderConfig
from yozora.models.text import TextEncoder
from yozora.train.config import Optim, Run, Section, Weights
from yozora.train.data import HELD_OUT_SEEDS, load_mix, pick, stream
from yozora.train.loop import fit
from yozora.train.resumed import settings_of
from yozora.train.text import VALUES
from yozora.world import sample_scene
from yozora.world.describe import DETAILS
from yozora.world.words import load_words, words_of
from yozora.world.words.asker import Asker
from yozora.world.words.seen import Seen, look_at
from yozora.world.words.teller import Teller

READ_FIRST = 3_000  # prompts for the list of known words
SHOWN = 400  # held-out prompts that are read
FACTS = VALUES | {"relation": ("left", "right", "behind", "front")}


class RewriterStage(Section):
    """`yozora train rewriter`: a text encoder goes on learning, from prompts as people write them, which facts they
    state.

    `scenes` of `mix` are asked for; a share of `orderly` in the words of captions, the others in many more, and `junk`
    of all with a word that means nothing. `at_length` of the batches are of long prompts, and half as large.
    """

    run: Run
    optim: Optim
    text_encoder: Path  # what it begins from, with its vocabulary
    mix: str | dict[str, Any] = "simple"
    scenes: int = Field(default=2000, gt=0)
    batch: int = Field(default=64, gt=0)
    languages: Weights = Field(default={"en": 0.34, "de": 0.22, "fr": 0.22, "es": 0.22})
    orderly: float = Field(default=0.15, ge=0, le=1)
    junk: float = Field(default=0.06, ge=0, le=1)
    at_length: float = Field(default=0.1, ge=0, le=1)


def train_rewriter(config: RewriterStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights. Raises ConfigError, ModelError."""
    return fit(RewriterTask(config), config.run, config.optim, resume, settings=settings_of(config))


class Asked(NamedTuple):
    """What is asked for, and the facts that this states, by name."""

    prompt: str
    facts: dict[str, str]


class Prompts(NamedTuple):
    """Texts, and for each fact the number of its value, UNSAID where they are silent: int64 `[B, facts]`."""

    texts: list[str]
    values: Tensor


@dataclass
class Asking:
    """Draws prompts. `config.scenes` scenes are looked at once each, and asked for again and again in other words."""

    config: RewriterStage
    first_seed: int = 0
    looked: dict[int, Seen] = field(default_factory=dict, repr=False)

    def batch(self, step: int) -> Prompts:
        """See `yozora.train.data.Source`."""
        drawn = np.random.default_rng((self.config.run.seed, step))
        at_length = drawn.random() < self.config.at_length  # all or none: a long prompt would pad every short one
        count = -(-self.config.batch // 2) if at_length else self.config.batch
        return numbered([self.draw(drawn, at_length) for _ in range(count)])

    def draw(self, drawn: np.random.Generator, at_length: bool = False) -> Asked:
        """One prompt; `at_length`: of several sentences."""
        seen = self._look(int(drawn.integers(self.config.scenes)))
        language, seed = pick(self.config.languages, drawn), int(drawn.integers(1 << 31))
        if drawn.random() < self.config.orderly:
            teller = Teller(seen, load_words(language), seed, DETAILS[at_length])
            prompt = teller.dense() if at_length else teller.short()
        else:
            teller = Asker(seen, language, seed)
            prompt = teller.ask(at_length)
        if drawn.random() < self.config.junk:
            prompt = with_junk(prompt, random.Random(seed))
        return Asked(prompt, {name: value for name, value in teller.stated.items() if value in FACTS.get(name, ())})

    def _look(self, number: int) -> Seen:
        if number not in self.looked:
            self.looked[number] = look_at(sample_scene(self.first_seed + number, load_mix(self.config.mix)))
        return self.looked[number]


def with_junk(prompt: str, drawn: random.Random) -> str:
    """A word that means nothing, somewhere in the prompt: it is to be passed over."""
    words = prompt.split(" ")
    junk = "".join(drawn.choices("abcdefghiklmnoprstuvz", k=drawn.randint(3, 9)))
    words.insert(drawn.randrange(len(words) + 1), junk)
    return " ".join(words)


def numbered(asked: list[Asked]) -> Prompts:
    """Prompts with the numbers of what they state."""
    values = [
        [1 + known.index(one.facts[name]) if name in one.facts else UNSAID for name, known in FACTS.items()]
        for one in asked
    ]
    return Prompts([one.prompt for one in asked], torch.tensor(values))


def known_words(asked: list[Asked]) -> frozenset[str]:
    """The words of prompts that come up more than once: not the slips of a finger."""
    count: dict[str, int] = {}
    for one in asked:
        for word in set(words_of(one.prompt)):
            count[word] = count.get(word, 0) + 1
    return frozenset(word for word, times in count.items() if times > 1)


class RewriterTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: RewriterStage) -> None:
        self.config, self.asking = config, Asking(config)
        torch.manual_seed(config.run.seed)
        text = load_module(TextEncoder, config.text_encoder)
        clean = Asking(config.model_copy(update={"junk": 0.0}), looked=self.asking.looked)
        drawn, count = np.random.default_rng((config.run.seed, 1 << 40)), min(READ_FIRST, 8 * config.scenes)
        words = known_words([clean.draw(drawn, n % 8 == 0) for n in range(count)])
        self.model = PromptReader(PromptReaderConfig(FACTS, text.config), text.tokenizer, words)
        self.model.text.load_state_dict(text.state_dict())

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and ".blocks." in name

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Prompts]:
        return stream(self.asking, start, self.config.run.steps, self.config.run.workers)

    def size(self, batch: Prompts) -> int:
        return len(batch.texts)

    def loss(self, batch: Prompts, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        logits, values = self.model(batch.texts), batch.values.to(self.model.queries.device)
        losses = [F.cross_entropy(one, value) for one, value in zip(logits.values(), values.T, strict=True)]
        right = torch.stack([one.argmax(1) for one in logits.values()], dim=1) == values
        return torch.stack(losses).mean(), {
            "stated_right": right[values != UNSAID].float().mean().item(),
            "understood": right.all(1).float().mean().item(),
        }

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """How often each fact that is stated is read in held-out prompts, how often one is read that is not, and the
        prompts that were not understood in full."""
        assert isinstance(model, PromptReader)
        asking, drawn = Asking(self.config, first_seed=HELD_OUT_SEEDS), np.random.default_rng(7)
        asked = [asking.draw(drawn) for _ in range(SHOWN)]
        read = [model.read(one.prompt) for one in asked]
        lines = []
        for name in FACTS:
            stated = [
                (one.facts[name], said.get(name)) for one, said in zip(asked, read, strict=True) if name in one.facts
            ]
            invented = sum(name in said and name not in one.facts for one, said in zip(asked, read, strict=True))
            right = sum(a == b for a, b in stated)
            lines.append(f"{name:18s} {right} of {len(stated)} stated ones read, {invented} invented")
        full = [said == one.facts for one, said in zip(asked, read, strict=True)]
        lines.append(f"understood in full: {sum(full)} of {SHOWN}")
        for one, said, whole in zip(asked, read, full, strict=True):
            if not whole:
                wrong = {name for name in one.facts.keys() | said.keys() if one.facts.get(name) != said.get(name)}
                told = ", ".join(f"{n}: {one.facts.get(n, '-')} read as {said.get(n, '-')}" for n in sorted(wrong))
                lines.append(f"- {one.prompt}\n    {told}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.int8)
