"""The text encoder of the shipped model: bytes in pairs (BPE), then a small bidirectional transformer.

It is trained together with the diffusion transformer. The vocabulary is built from bytes, so no prompt in any script is
out of vocabulary; text is NFC-normalised, lower-cased, and its white space collapsed. The empty prompt is the null
prompt of classifier-free guidance: every prompt begins with a <bos> token, and of "" it is the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.attention import attend

PAD, BOS = "<pad>", "<bos>"
LARGEST = {"vocab_size": 2**20, "width": 2**16, "depth": 2**10, "heads": 2**16, "max_tokens": 2**16}
LENGTH_STEP = 8
"""Texts come in few lengths, because the first use of a new size costs a CPU as much as several steps of training."""
TOKENIZER_FILE = "tokenizer.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a text encoder. `vocab_size` is at least the tokenizer's; prompts over `max_tokens` are cut."""

    vocab_size: int = 2048
    width: int = 256
    depth: int = 4
    heads: int = 4
    ffn: float = 4.0
    max_tokens: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, most in LARGEST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between 1 and {most}, not {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if not 1 / self.width <= self.ffn <= 64:
            raise ValueError(f"ffn must be between 1 / width and 64, not {self.ffn}")


class TextEncoder(nn.Module):
    """Prompts → states, one a token, that the diffusion transformer attends to."""

    def __init__(self, config: TextEncoderConfig, tokenizer: Tokenizer) -> None:
        """Raises ModelError where the tokenizer has more tokens than the configuration, or lacks <pad> or <bos>."""
        super().__init__()
        size, pad, bos = tokenizer.get_vocab_size(), tokenizer.token_to_id(PAD), tokenizer.token_to_id(BOS)
        if size > config.vocab_size:
            raise ModelError(f"the tokenizer has {size} tokens, the text encoder only {config.vocab_size}; use its own")
        if pad is None or bos is None:
            raise ModelError(f"the tokenizer lacks {PAD} or {BOS}; make one with train_tokenizer")
        self.config, self.tokenizer, self.pad, self.bos = config, tokenizer, pad, bos
        tokenizer.encode_special_tokens = True  # "<bos>" in a prompt is five characters like any others
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.max_tokens, config.width)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.eps)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """B prompts → (states [B, L, width], mask bool [B, L], True where there is text); "" is the null prompt."""
        ids, mask = self.tokenize(prompts)
        device = self.tokens.weight.device
        ids, mask = ids.to(device), mask.to(device)
        return self.encode(ids, mask), mask

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """B prompts → (ids int64 [B, L], mask bool [B, L]) on the CPU; L is the longest prompt's, rounded up."""
        limit = self.config.max_tokens
        rows = [
            [self.bos, *encoding.ids] for encoding in self.tokenizer.encode_batch(prompts, add_special_tokens=False)
        ]
        if (longest := max(map(len, rows), default=1)) > limit:
            log.warning("a prompt of %d tokens was cut to the %d that the model reads", longest, limit)
        length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, limit)
        ids = torch.full((len(rows), length), self.pad)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row[:length])
            mask[n, : len(row)] = True
        return ids, mask

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids int64 [B, L], mask bool [B, L] → states [B, L, width]; where mask is False they are zero."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))[:, None, None]
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x) * mask.unsqueeze(-1)

    def is_cut(self, prompt: str) -> bool:
        """Whether the prompt is longer than the model reads."""
        return len(self.tokenizer.encode(prompt, add_special_tokens=False).ids) >= self.config.max_tokens

    def save_assets(self, folder: Path) -> None:
        """Write what is no tensor: the tokenizer, beside config.json."""
        (folder / TOKENIZER_FILE).write_text(self.tokenizer.to_str(pretty=False), encoding="utf-8")

    @staticmethod
    def load_assets(folder: Path) -> dict[str, Tokenizer]:
        """Read what `save_assets` wrote, as arguments of the constructor. Raises ModelError."""
        path = folder / TOKENIZER_FILE
        try:
            return {"tokenizer": Tokenizer.from_str(path.read_text(encoding="utf-8"))}
        except FileNotFoundError:
            raise ModelError(f"{path} is missing: a text encoder needs its tokenizer; copy the whole folder") from None
        except Exception as error:  # tokenizers raises bare Exception for a file it cannot parse
            raise ModelError(f"{path} is no tokenizer ({str(error).splitlines()[0]}); copy the folder again") from None


class TextBlock(nn.Module):
    """A pre-norm transformer block that looks both ways."""

    def __init__(self, config: TextEncoderConfig) -> None:
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

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x [B, L, width], bias added to scores [B, 1, 1, L] → [B, L, width]."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, bias)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_ffn(x)), approximate="tanh"))


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """Learn a byte-level BPE vocabulary of at most `vocab_size` tokens: the 256 bytes, <pad>, <bos>, merges."""
    if vocab_size < 258:
        raise ValueError(f"a byte-level vocabulary has at least 258 tokens, not {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, BOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
