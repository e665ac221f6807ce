"""Wan's text encoder, UMT5-XXL (Chung et al. 2023), by transformers: prompts into 512 states, zero for the paddings.

The weights are read by key maps and not by transformers, some versions of which leave the embedding table zero where a
checkpoint stores it as `shared.weight`. Prompts are encoded at their own length, which gives the same states as padding
them to 512 tokens first and takes a tenth of the time, and by default on the CPU: 11 GB that a GPU need not hold.
"""

from __future__ import annotations

import html
import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.folder import CONFIG, first_line, read_json
from yozora.models.mapped import PICKLED, Row, Stored, key_map, load_mapped, numbered

MAX_TOKENS = 512
EMBEDDING, ALSO_EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"

ENDS: tuple[Row, ...] = (  # transformers' name, the same, the original release's
    (EMBEDDING, EMBEDDING, "token_embedding.weight", ""),
    ("encoder.final_layer_norm", "encoder.final_layer_norm", "norm", "weight"),
)
LAYER: tuple[tuple[str, str], ...] = (  # the same within each layer
    ("layer.0.layer_norm", "norm1"),
    ("layer.0.SelfAttention.q", "attn.q"),
    ("layer.0.SelfAttention.k", "attn.k"),
    ("layer.0.SelfAttention.v", "attn.v"),
    ("layer.0.SelfAttention.o", "attn.o"),
    ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
    ("layer.1.layer_norm", "norm2"),
    ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"),
    ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
    ("layer.1.DenseReluDense.wo", "ffn.fc2"),
)
UMT5_XXL = {  # what the original layout does not say
    "vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-6,
}  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WanTextConfig:
    """`width` of a state; prompts over `max_tokens` are cut."""

    width: int = 4096
    max_tokens: int = MAX_TOKENS


class WanTextEncoder(nn.Module):
    """Prompts → states [B, 512, width] on `device` and no mask: Wan attends to the zeros after a prompt, too."""

    def __init__(self, encoder: nn.Module, tokenizer: Any, width: int, device: torch.device) -> None:
        super().__init__()
        self.config = WanTextConfig(width)
        self.encoder, self.tokenizer, self.device = encoder, tokenizer, device

    def forward(self, prompts: list[str]) -> tuple[Tensor, None]:
        """B prompts → (states [B, 512, width], None); "" is the null prompt."""
        cleaned = [clean(prompt) for prompt in prompts]
        if any(self.is_cut(prompt) for prompt in prompts):
            log.warning("a prompt was cut to the %d tokens that the model reads", self.config.max_tokens)
        given = self.tokenizer(
            cleaned,
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        place = next(self.encoder.parameters()).device
        ids, mask = given["input_ids"].to(place), given["attention_mask"].to(place)
        states = self.encoder(ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        return F.pad(states, (0, 0, 0, self.config.max_tokens - states.shape[1])).to(self.device), None

    def is_cut(self, prompt: str) -> bool:
        """Whether the prompt is longer than the model reads."""
        return len(self.tokenizer(clean(prompt))["input_ids"]) > self.config.max_tokens


def clean(prompt: str) -> str:
    """A prompt as Wan was trained on them: broken Unicode mended (ftfy), HTML's entities resolved, single spaces."""
    mended = _library("ftfy").fix_text(prompt)
    return " ".join(html.unescape(html.unescape(mended)).split())


def load_wan_text(
    place: str | Path,
    tokenizer: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    encode_on: torch.device | str = "cpu",
) -> WanTextEncoder:
    """The text encoder of a folder as transformers writes it, or of an original .pth file, and the folder of its
    tokenizer. States are given on `device`, made on `encode_on`. Raises ModelError, in one line."""
    place = Path(place)
    original = place.suffix == PICKLED
    library = _library("transformers")
    fields = UMT5_XXL if original else read_json(place / CONFIG)
    if not original and fields.get("model_type") != "umt5":
        raise ModelError(
            f"{place / CONFIG} describes {str(fields.get('model_type'))[:60]}, not the UMT5 that Wan reads"
        )
    try:
        config = library.UMT5Config(**fields)
        with torch.device("meta"):
            encoder = library.UMT5EncoderModel(config)
    except Exception as error:  # whatever transformers makes of a file that says odd things
        raise ModelError(f"{place / CONFIG} describes no UMT5 encoder: {first_line(error)}") from None
    with Stored(place, "model") as stored:
        keys = dict(key_map(text_rows(config.num_layers), "original" if original else "diffusers"))
        if EMBEDDING not in stored.shapes and ALSO_EMBEDDING in stored.shapes:
            keys[EMBEDDING] = (ALSO_EMBEDDING,)
        load_mapped(encoder, keys, stored, encode_on, dtype, ignored=(EMBEDDING, ALSO_EMBEDDING))
    encoder.encoder.embed_tokens.weight = encoder.shared.weight  # one table by two names
    return WanTextEncoder(
        encoder, _read_tokenizer(library, Path(tokenizer)), config.d_model, torch.device(device)
    ).eval()


def text_rows(layers: int) -> list[Row]:
    """The table of names of an encoder of so many layers."""
    rows = list(ENDS)
    for n in range(layers):
        row: list[Row] = [(theirs, theirs, original, "weight") for theirs, original in LAYER]
        rows += [numbered(each, f"encoder.block.{n}.", original=f"blocks.{n}.") for each in row]
    return rows


def read_text_width(place: Path) -> int:
    """The width of a text encoder's states, from its configuration. Raises ModelError."""
    width = UMT5_XXL["d_model"] if place.suffix == PICKLED else read_json(place / CONFIG).get("d_model")
    if not isinstance(width, int):
        raise ModelError(f"{place / CONFIG} does not say 'd_model'; copy it again")
    return width


def _read_tokenizer(library: Any, folder: Path) -> Any:
    if not folder.is_dir():
        raise ModelError(f"{folder} is missing: a text encoder needs its tokenizer; copy the whole model folder")
    try:
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and what it calls raise all sorts for files that are damaged
        raise ModelError(f"{folder} is no tokenizer that can be read ({first_line(error)}); copy it again") from None


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ModelError(f"open models need {name}: pip install 'yozora[open]'") from None
