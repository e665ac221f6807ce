"""A small language model that turns what is asked into labels and a caption: the default rewriter's network.

One transformer reads and writes (a prefix language model, Raffel et al., 2020): the tokens of the prompt look both
ways, those that are written only back. What it writes first are labels, one token each, such as `colour=red`: what the
prompt says. What follows is the caption, which can so lean on them. Input and output share their embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.attention import attend
from yozora.models.text import BOS, PAD, TextEncoder

CONTROLS = ("<labels>", "<caption>", "<end>")  # what begins the labels, begins the caption, ends it
WORDS_FILE = "words.txt"


@dataclass(frozen=True)
class LanguageConfig:
    """Sizes. `vocab_size` is at least the tokenizer's; `labels` and CONTROLS are tokens behind those. Of a prompt at
    most `max_prompt` tokens are read, and at most `max_tokens` stand in all of a text."""

    labels: tuple[str, ...]
    vocab_size: int = 2048
    width: int = 192
    depth: int = 4
    heads: int = 6
    ffn: float = 4.0
    max_prompt: int = 128
    max_tokens: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))  # JSON gives lists
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if not 1 <= self.max_prompt < self.max_tokens:
            raise ValueError(f"max_prompt must be at least 1 and under max_tokens, not {self.max_prompt}")


class Written(NamedTuple):
    """What the model makes of a prompt: labels in the order in which it wrote them, and the caption. `finished` is
    False where it did not come to an end."""

    labels: tuple[str, ...]
    caption: str
    finished: bool


class LanguageModel(nn.Module):
    """Token ids → the logits of the next ones; `write` is what it is for."""

    def __init__(self, config: LanguageConfig, tokenizer: Tokenizer, words: frozenset[str] = frozenset()) -> None:
        """`words` are those of the prompts that it was trained on. Raises ModelError for a tokenizer that is not its
        own."""
        super().__init__()
        if tokenizer.get_vocab_size() > config.vocab_size or tokenizer.token_to_id(BOS) is None:
            raise ModelError("the tokenizer is of another language model; copy the whole folder from one")
        self.config, self.tokenizer, self.words = config, tokenizer, words
        tokenizer.encode_special_tokens = True  # "<bos>" in a prompt is five characters like any others
        self.bos, self.pad = tokenizer.token_to_id(BOS), tokenizer.token_to_id(PAD)
        self.first_label = config.vocab_size
        first_control = config.vocab_size + len(config.labels)
        self.begin_labels, self.begin_caption, self.end = range(first_control, first_control + len(CONTROLS))
        self.tokens = nn.Embedding(first_control + len(CONTROLS), config.width)
        self.positions = nn.Embedding(config.max_tokens, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.eps)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Int[Tensor, "b l"], prompts: Int[Tensor, "b"]) -> Float[Tensor, "b l width"]:
        """Ids, and how many of each row are the prompt → states; `predict` makes logits of those that are wanted."""
        place = torch.arange(ids.shape[1], device=ids.device)
        seen = (place[None, :] <= place[:, None]) | (place[None, None, :] < prompts[:, None, None])
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x, _ = block(x, _bias(seen[:, None]))
        return self.norm(x)

    def predict(self, states: Float[Tensor, "... width"]) -> Float[Tensor, "... tokens"]:
        """The logits of the token that comes next."""
        return F.linear(states, self.tokens.weight)

    @torch.no_grad()
    def write(self, prompt: str) -> Written:
        """Greedily, so that a prompt always gives the same. What is too long is cut."""
        return self._written(self._continue(self.prompt_ids(prompt), self.config.max_tokens))

    @torch.no_grad()
    def read(self, text: str) -> tuple[str, ...]:
        """Only the labels of a text."""
        ids = self.prompt_ids(text)
        return self._written(self._continue(ids, len(ids) + len(self.config.labels), self.begin_caption)).labels

    @torch.no_grad()
    def caption(self, labels: Sequence[str]) -> Written:
        """A caption that states these labels, with no prompt before it. Raises KeyError for an unknown one."""
        ids = [self.bos, self.begin_labels, *self.label_ids(labels), self.begin_caption]
        return self._written(self._continue(ids, self.config.max_tokens, prompt=1))

    def prompt_ids(self, text: str) -> list[int]:
        """The tokens of a prompt and of the sign that the labels begin."""
        return [self.bos, *self.text_ids(text)[: self.config.max_prompt - 2], self.begin_labels]

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def label_ids(self, labels: Sequence[str]) -> list[int]:
        """The tokens of labels. Raises KeyError for an unknown one."""
        numbers = {label: self.first_label + n for n, label in enumerate(self.config.labels)}
        return [numbers[label] for label in labels]

    def _continue(self, ids: list[int], most: int, stop: int | None = None, prompt: int | None = None) -> list[int]:
        """`ids` and what is written behind them, until `stop` (else the end) or `most` tokens."""
        device, stop = self.tokens.weight.device, self.end if stop is None else stop
        most = min(most, self.config.max_tokens)
        read = len(ids) - 1 if prompt is None else prompt  # the last one only looks back, and all see it
        place = torch.arange(len(ids), device=device)
        seen: Tensor | None = (place[None] <= place[:, None]) | (place[None] < read)
        fresh, kept = torch.tensor([ids], device=device), [None] * len(self.blocks)
        start = 0
        while len(ids) < most and ids[-1] != stop:
            x = self.tokens(fresh) + self.positions.weight[start : start + fresh.shape[1]]
            for n, block in enumerate(self.blocks):
                x, kept[n] = block(x, None if seen is None else _bias(seen), kept[n])
            start, seen = start + fresh.shape[1], None
            following = int(self.predict(self.norm(x[:, -1])).argmax())
            ids = [*ids, following]
            fresh = torch.tensor([[following]], device=device)
        return ids

    def _written(self, ids: list[int]) -> Written:
        """Labels and caption out of all ids, the prompt's among them."""
        tail = ids[ids.index(self.begin_labels) + 1 :]
        finished = tail[-1:] == [self.end]
        where = tail.index(self.begin_caption) if self.begin_caption in tail else len(tail)
        labels = [i - self.first_label for i in tail[:where] if self.first_label <= i < self.begin_labels]
        words = [i for i in tail[where + 1 :] if i < self.first_label]
        return Written(tuple(self.config.labels[n] for n in labels), self.tokenizer.decode(words).strip(), finished)

    def save_assets(self, folder: Path) -> None:
        """Write what is no tensor: the tokenizer, and the words of the prompts that it was trained on."""
        TextEncoder.save_assets(self, folder)  # pyright: ignore[reportArgumentType]
        (folder / WORDS_FILE).write_text("\n".join(sorted(self.words)) + "\n", encoding="utf-8")

    @staticmethod
    def load_assets(folder: Path) -> dict[str, object]:
        """Read what `save_assets` wrote, as arguments of the constructor. Raises ModelError."""
        try:
            words = (folder / WORDS_FILE).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            raise ModelError(f"{folder / WORDS_FILE} is missing or broken; copy the whole folder again") from None
        return {**TextEncoder.load_assets(folder), "words": frozenset(word for word in words if word)}


Kept = tuple[Tensor, Tensor]  # keys and values of the tokens before, [B, heads, L, d] each


class Block(nn.Module):
    """A pre-norm transformer block that can go on where it was."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.heads = config.heads
        hidden = round(config.width * config.ffn)
        self.norm_attention = nn.LayerNorm(config.width, config.eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_ffn = nn.LayerNorm(config.width, config.eps)
        self.up = nn.Linear(config.width, hidden)
        self.down = nn.Linear(hidden, config.width)
        for linear in (self.qkv, self.up):
            nn.init.xavier_uniform_(linear.weight)
        for linear in (self.out, self.down):  # branches start silent
            nn.init.zeros_(linear.weight)
        for linear in (self.qkv, self.out, self.up, self.down):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, bias: Tensor | None, kept: Kept | None = None) -> tuple[Tensor, Kept]:
        """x [B, L, width], bias added to scores; `kept` of earlier tokens → x, and what is to be kept."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if kept is not None:
            k, v = torch.cat([kept[0], k], dim=2), torch.cat([kept[1], v], dim=2)
        x = x + self.out(attend(q, k, v, bias).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_ffn(x)), approximate="tanh")), (k, v)


def _bias(seen: Bool[Tensor, "..."]) -> Tensor:
    """What is added to scores: 0 where a token is seen, else minus infinity."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))
