"""The model that fine-tuning begins from, Yozora's own or one of Wan, by its parts: each is loaded alone, when its turn
comes, and the text encoder of an open model only to write down once what it makes of each caption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from yozora.diffusion import whole_levels
from yozora.errors import ConfigError
from yozora.models.folder import load_module, read_json, unwritten, write_json
from yozora.models.registry import ModelInfo, find_model, quick_dtype, read_parts
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan import load_wan_transformer
from yozora.models.wan_folder import WanParts, find_parts, is_wan
from yozora.models.wan_text import MAX_TOKENS, load_wan_text

ORIGIN = "text_encoder.json"  # beside what it has made: which it was
TOGETHER = 64  # captions of one file; what is done when a run is stopped is kept

Reads = Callable[[list[str]], tuple[Tensor, Tensor | None]]
"""Captions → states [B, L, width] and their mask, as a transformer takes them."""


@dataclass(frozen=True)
class Base:
    """A model folder, and its card. `wan`: the parts of one of Wan."""

    folder: Path
    card: ModelInfo
    transformer: TransformerConfig
    wan: WanParts | None

    @property
    def weights(self) -> Path:
        """The transformer's folder."""
        return self.folder / "transformer" if self.wan is None else self.wan.transformer

    @property
    def autoencoder(self) -> Path:
        """The place of the autoencoder's weights."""
        return self.folder / "autoencoder" if self.wan is None else self.wan.autoencoder

    def load(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Transformer:
        """The transformer. Raises ModelError."""
        if self.wan is None:
            return load_module(Transformer, self.weights, device)
        return load_wan_transformer(self.weights, device, dtype)

    def shown(self, levels: Tensor) -> Tensor:
        """Noise levels as the transformer is told them: see `whole_levels`."""
        return levels if self.card.whole_levels is None else whole_levels(levels, self.card.whole_levels)

    def reader(self, states: Path, device: torch.device) -> Reads:
        """What reads captions: Yozora's own text encoder, or what that of an open model has written to `states`. Raises
        ModelError."""
        if self.wan is None:
            return load_module(TextEncoder, self.folder / "text_encoder", device).requires_grad_(False)
        return WrittenStates(states, device)

    def write_states(self, captions: Iterable[str], folder: Path, precision: str) -> None:
        """Has the text encoder of an open model write down what it makes of the captions, and of none, but for what is
        there already. Raises ModelError, ConfigError."""
        if self.wan is None:
            return
        origin = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in _files(self.wan.text_encoder)]
        write_states(["", *captions], folder, {"text_encoder": origin}, lambda: self._load_text(precision))

    def _load_text(self, precision: str) -> Reads:
        assert self.wan is not None
        cpu = torch.device("cpu")  # where it can be larger than a GPU's memory
        dtype = torch.float32 if precision == "fp32" else quick_dtype(cpu)
        return load_wan_text(self.wan.text_encoder, self.wan.tokenizer, cpu, dtype)


def find_base(model: str | Path) -> Base:
    """A model by its name or folder. Raises ModelError."""
    folder = find_model(model)
    card, _, transformer = read_parts(folder)
    return Base(folder, card, transformer, find_parts(folder) if is_wan(folder) else None)


def _files(place: Path) -> list[Path]:
    return sorted(place.glob("*.safetensors")) if place.is_dir() else [place]


# ---- what a text encoder has written down ----------------------------------------------------------------------------


@torch.no_grad()
def write_states(captions: Iterable[str], folder: Path, origin: dict[str, Any], load: Callable[[], Reads]) -> None:
    """Writes the states of each caption to safetensors in `folder`, [tokens, width] without the zeros after them, where
    they are not there already, of the same `origin`. The text encoder that `load` gives is loaded only if need be.
    Raises ConfigError where that cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ORIGIN).exists() or read_json(folder / ORIGIN) != origin:
        for path in folder.glob("*.safetensors"):
            path.unlink()
        write_json(folder / ORIGIN, origin)
    there = _index(folder)
    wanted = [caption for caption in dict.fromkeys(captions) if _key(caption) not in there]
    read = load() if wanted else None
    for start in range(0, len(wanted), TOGETHER):
        assert read is not None
        part = wanted[start : start + TOGETHER]
        tensors = {_key(caption): _trimmed(read([caption])[0][0]).contiguous().clone() for caption in part}
        path = folder / f"{_key(part[0])}.safetensors"
        try:
            save_file(tensors, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        except (OSError, SafetensorError) as error:
            path.with_suffix(".part").unlink(missing_ok=True)
            raise ConfigError(f"cannot write {path} ({unwritten(error)}); is the disk full?") from None
        print(f"captions  {start + len(part)}/{len(wanted)} read by the text encoder", flush=True)


@dataclass(frozen=True)
class WrittenStates:
    """Captions → what was written down of them: states [B, 512, width] on `device`, zeros after the text, and no
    mask."""

    folder: Path
    device: torch.device

    @cached_property
    def index(self) -> dict[str, Path]:
        return _index(self.folder)

    def __call__(self, captions: list[str]) -> tuple[Tensor, None]:
        states = [self._read(caption) for caption in captions]
        return torch.stack([F.pad(each, (0, 0, 0, MAX_TOKENS - len(each))) for each in states]).to(self.device), None

    def _read(self, caption: str) -> Tensor:
        path = self.index.get(_key(caption))
        if path is None:
            raise ConfigError(f"{self.folder} lacks what the text encoder made of {caption[:60]!r}; begin again")
        with safe_open(path, "pt") as file:  # memory-mapped: all of them together may be large
            return file.get_tensor(_key(caption))


def _index(folder: Path) -> dict[str, Path]:
    """The file of each caption's states; a damaged one has none."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(SafetensorError), safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def _key(caption: str) -> str:
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).hexdigest()


def _trimmed(states: Tensor) -> Tensor:
    """Without the zeros after the text."""
    return states[: 1 + int(states.abs().amax(-1).nonzero().max())]
