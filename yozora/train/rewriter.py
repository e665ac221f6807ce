"""Training the rewriter: what somebody asks for, in four languages, becomes labels and a caption in English.

Scenes of the world are asked for as people would (`yozora.world.words.asker`), and told as the video model's captions
are. Which facts a prompt states is known exactly: these become the labels, and the caption states at least them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models.folder import save_module
from yozora.models.language import LanguageConfig, LanguageModel
from yozora.models.text import train_tokenizer
from yozora.train.config import RewriterStage
from yozora.train.data import HELD_OUT_SEEDS, load_mix, pick, stream
from yozora.train.loop import fit
from yozora.train.settings import build
from yozora.train.text import VALUES
from yozora.world import sample_scene
from yozora.world.words import load_words, words_of
from yozora.world.words.asker import Asker
from yozora.world.words.seen import Seen, look_at
from yozora.world.words.teller import Teller

LABELS = tuple(f"{name}={value}" for name, values in VALUES.items() for value in values)
READ_FIRST = 6_000  # prompts for the vocabulary and the list of known words
PHRASINGS = 6  # captions of a scene that are looked through for one that states what was asked
LENGTH_STEP = 16
IGNORED = -100  # a token that is not to be predicted


def train_rewriter(config: RewriterStage, resume: bool = True) -> Path:
    """Runs the stage; returns the folder with the averaged weights. Raises ConfigError."""
    return fit(RewriterTask(config), config.run, config.optim, resume)


class Asked(NamedTuple):
    """What is asked for, the facts that this states, by name, and a caption that states them, too. With an empty prompt
    the caption is to be written from the facts alone."""

    prompt: str
    facts: dict[str, str]
    caption: str


class Pairs(NamedTuple):
    """Texts as ids int64 `[B, L]`, how many of each are the prompt's `[B]`, and what follows each id `[B, L]`."""

    ids: Tensor
    prompts: Tensor
    following: Tensor


@dataclass
class Prompts:
    """Draws prompts. `scenes` scenes are looked at once each, and asked for again and again in other words."""

    config: RewriterStage
    first_seed: int = 0
    looked: dict[int, Seen] = field(default_factory=dict, repr=False)

    def draw(self, drawn: np.random.Generator, at_length: bool = False) -> Asked:
        seen = self._look(int(drawn.integers(self.config.scenes)))
        language, seed = pick(self.config.languages, drawn), int(drawn.integers(1 << 31))
        if drawn.random() < self.config.orderly:
            teller = Teller(seen, load_words(language), seed, pick(self.config.details, drawn))
            prompt = teller.dense() if at_length else teller.short()
        else:
            teller = Asker(seen, language, seed)
            prompt = teller.ask(at_length)
        if drawn.random() < self.config.junk:
            prompt = _with_junk(prompt, random.Random(seed))
        if drawn.random() < self.config.unprompted:
            prompt = ""
        facts = {name: value for name, value in teller.stated.items() if value in VALUES.get(name, ())}
        return Asked(prompt, facts, self._caption(seen, teller.stated, drawn))

    def _look(self, number: int) -> Seen:
        if number not in self.looked:
            self.looked[number] = look_at(sample_scene(self.first_seed + number, load_mix(self.config.mix)))
        return self.looked[number]

    def _caption(self, seen: Seen, stated: dict[str, str], drawn: np.random.Generator) -> str:
        """The first of some captions that states all of what was asked, or else a dense one."""
        detail, words = pick(self.config.details, drawn), load_words("en")
        for _ in range(PHRASINGS):
            teller = Teller(seen, words, int(drawn.integers(1 << 31)), detail)
            caption = teller.dense() if detail == "dense" else teller.short()
            if stated.keys() <= teller.stated.keys():
                return caption
        return Teller(seen, words, int(drawn.integers(1 << 31)), "dense").dense()


def _with_junk(prompt: str, drawn: random.Random) -> str:
    """A word that means nothing, somewhere in the prompt: it is to be passed over."""
    words = prompt.split(" ")
    junk = "".join(drawn.choices("abcdefghiklmnoprstuvz", k=drawn.randint(3, 9)))
    words.insert(drawn.randrange(len(words) + 1), junk)
    return " ".join(words)


@dataclass
class PromptBatches:
    """See `yozora.train.data.Source`."""

    config: RewriterStage
    model: LanguageModel
    prompts: Prompts

    def batch(self, step: int) -> Pairs:
        drawn = np.random.default_rng((self.config.run.seed, step))
        at_length = drawn.random() < self.config.at_length  # all or none: a long prompt would pad every short one
        count = -(-self.config.batch // 2) if at_length else self.config.batch
        return collate(self.model, [self.prompts.draw(drawn, at_length) for _ in range(count)])


def collate(model: LanguageModel, asked: list[Asked]) -> Pairs:
    """Texts of prompt, labels and caption, the shorter ones filled up behind."""
    rows, prompts = [], []
    for one in asked:
        start = model.prompt_ids(one.prompt)
        labels = model.label_ids([f"{name}={value}" for name, value in sorted_facts(one.facts)])
        row = [*start, *labels, model.begin_caption, *model.text_ids(one.caption)]
        rows.append([*row[: model.config.max_tokens - 1], model.end])
        prompts.append(len(start) - 1)
    longest = max(map(len, rows))
    length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, model.config.max_tokens)
    ids = torch.full((len(rows), length), model.pad)
    following = torch.full((len(rows), length), IGNORED)
    for n, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[n, : len(row)] = torch.tensor(row)
        first = prompt if asked[n].prompt else row.index(model.begin_caption)
        following[n, first : len(row) - 1] = torch.tensor(row[first + 1 :])
    return Pairs(ids, torch.tensor(prompts), following)


def sorted_facts(facts: dict[str, str]) -> list[tuple[str, str]]:
    """Facts in one order, whatever the order they were stated in."""
    return [(name, facts[name]) for name in VALUES if name in facts]


class RewriterTask:
    """See `yozora.train.loop.Task`."""

    def __init__(self, config: RewriterStage) -> None:
        self.config = config
        torch.manual_seed(config.run.seed)
        self.prompts = Prompts(config)
        drawn = np.random.default_rng((config.run.seed, 1 << 40))
        clean = Prompts(config.model_copy(update={"junk": 0.0, "unprompted": 0.0}), looked=self.prompts.looked)
        count = min(READ_FIRST, 8 * config.scenes)
        asked = [clean.draw(drawn, drawn.random() < config.at_length) for _ in range(count)]
        tokenizer = train_tokenizer((text for one in asked for text in (one.prompt, one.caption)), config.vocabulary)
        settings = {"labels": LABELS, "vocab_size": config.vocabulary, **config.model}
        self.model = LanguageModel(build(LanguageConfig, settings), tokenizer, known_words(asked))

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2 and name.startswith("blocks.")

    def rate(self, name: str) -> float:
        return 1.0

    def batches(self, start: int) -> Iterator[Pairs]:
        run = self.config.run
        return stream(PromptBatches(self.config, self.model, self.prompts), start, run.steps, run.workers)

    def size(self, batch: Pairs) -> int:
        return len(batch.ids)

    def loss(self, batch: Pairs, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        device = next(self.model.parameters()).device
        ids, prompts, following = (each.to(device) for each in batch)
        wanted = following != IGNORED
        logits = self.model.predict(self.model(ids, prompts)[wanted])
        right = (logits.argmax(-1) == following[wanted]).float()
        labels = following[wanted] >= self.model.first_label
        loss = F.cross_entropy(logits.float(), following[wanted])
        return loss, {"labels_right": right[labels].mean().item(), "caption_right": right[~labels].mean().item()}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """What is made of held-out prompts, and how many are understood: exactly the labels that they state."""
        assert isinstance(model, LanguageModel)
        config = self.config.model_copy(update={"unprompted": 0.0})
        prompts, drawn = Prompts(config, first_seed=HELD_OUT_SEEDS), np.random.default_rng(7)
        lines, right = [], 0
        for _ in range(SHOWN):
            asked = prompts.draw(drawn)
            written = model.write(asked.prompt)
            understood = written.labels == tuple(f"{name}={value}" for name, value in sorted_facts(asked.facts))
            right += understood
            lines += [f"{'+' if understood else '-'} {asked.prompt}", f"    {' '.join(written.labels)}"]
            lines += [f"    {written.caption}"]
        folder.mkdir(parents=True, exist_ok=True)
        lines.append(f"understood in full: {right} of {SHOWN}")
        (folder / f"{step:07d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def export(self, model: nn.Module, folder: Path) -> None:
        save_module(model, folder, torch.int8)


SHOWN = 100  # held-out prompts that are looked at


def known_words(asked: list[Asked]) -> frozenset[str]:
    """The words of prompts and captions that come up more than once: not the slips of a finger."""
    count: dict[str, int] = {}
    for one in asked:
        for word in set(words_of(f"{one.prompt} {one.caption}")):
            count[word] = count.get(word, 0) + 1
    return frozenset(word for word, times in count.items() if times > 1)
