"""A small language model that reads prompts: which facts does a text state, in whatever words?

A text encoder, begun from the one of the shipped video model, which knows captions in four languages, goes on learning
from prompts as people write them. One learned query a fact looks at the states and names its value, or that nothing is
said of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.text import TextEncoder, TextEncoderConfig

WORDS_FILE = "words.txt"
UNSAID = 0  # the class of every fact that a text is silent about


@dataclass(frozen=True)
class PromptReaderConfig:
    """`facts` names each fact's values, in order."""

    facts: dict[str, tuple[str, ...]]
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", {name: tuple(values) for name, values in self.facts.items()})
        if isinstance(self.text, dict):  # from JSON
            object.__setattr__(self, "text", TextEncoderConfig(**self.text))


class PromptReader(nn.Module):
    """Texts → for each fact logits `[B, 1 + values]`, the first for "not said"; `read` gives names."""

    def __init__(self, config: PromptReaderConfig, tokenizer: Tokenizer, words: frozenset[str] = frozenset()) -> None:
        """`words` are those of the prompts that it was trained on."""
        super().__init__()
        self.config, self.words = config, words
        self.text = TextEncoder(config.text, tokenizer)
        width = config.text.width
        self.queries = nn.Parameter(torch.randn(len(config.facts), width) / width**0.5)
        self.classify = nn.ModuleList(nn.Linear(width, 1 + len(values)) for values in config.facts.values())

    def forward(self, texts: list[str]) -> dict[str, Float[Tensor, "b values"]]:
        states, mask = self.text(texts)
        scores = (states.float() @ self.queries.float().T).masked_fill(~mask[..., None], float("-inf"))
        pooled = torch.einsum("blf,blw->fbw", scores.softmax(1), states.float()).to(self.queries)
        return {
            name: classify(x).float()
            for name, classify, x in zip(self.config.facts, self.classify, pooled, strict=True)
        }

    def read(self, text: str) -> dict[str, str]:
        """The facts that a text states, by name, in the order of the configuration."""
        return {name: value for name, (value, _) in self.chances(text).items()}

    @torch.no_grad()
    def chances(self, text: str) -> dict[str, tuple[str, float]]:
        """As `read`, with how probable each is."""
        best = {name: logits[0].softmax(0).max(0) for name, logits in self([text]).items()}
        said = {name: (int(place), float(chance)) for name, (chance, place) in best.items()}
        return {name: (self.config.facts[name][n - 1], chance) for name, (n, chance) in said.items() if n != UNSAID}

    def knows(self, word: str, language: str) -> bool:
        """Whether it was trained on a word."""
        return word in self.words

    def unread(self, text: str) -> tuple[str, ...]:
        """None: which words it read a fact by cannot be told."""
        return ()

    def save_assets(self, folder: Path) -> None:
        """Write what is no tensor: the tokenizer, and the words of the prompts that it was trained on."""
        self.text.save_assets(folder)
        (folder / WORDS_FILE).write_text("\n".join(sorted(self.words)) + "\n", encoding="utf-8")

    @staticmethod
    def load_assets(folder: Path) -> dict[str, object]:
        """Read what `save_assets` wrote, as arguments of the constructor. Raises ModelError."""
        try:
            words = (folder / WORDS_FILE).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            raise ModelError(f"{folder / WORDS_FILE} is missing or broken; copy the whole folder again") from None
        return {**TextEncoder.load_assets(folder), "words": frozenset(word for word in words if word)}
