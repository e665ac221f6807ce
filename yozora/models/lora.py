"""LoRA (Hu et al. 2021): a small file of low-rank changes to a transformer's matrices, which teaches it something new.

A matrix W becomes W + scale · alpha / rank · B·A. The file is safetensors with `NAME.lora_A.weight` [rank, columns] and
`NAME.lora_B.weight` [rows, rank] for each matrix NAME, and says in its metadata what it was made for. Several add up.
They are added to the weights when these are loaded, so a model with them is as fast as without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.adapter import LowRank, matrices_of
from yozora.models.folder import first_line, refuse_pickle, unwritten, weights_digest
from yozora.models.transformer import MAX_WIDTH, Transformer

A, B = ".lora_A.weight", ".lora_B.weight"
MAX_SCALE = 10.0
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)  # which an alpha may be


@dataclass(frozen=True)
class LoraConfig:
    """`rank` of the changes; they count `alpha` / `rank` (None: 1). `text`: whether what reads the text is changed,
    too. `blocks`: whether it is the blocks alone that are changed, as LoRAs for the open models do."""

    rank: int = 16
    alpha: float | None = None
    text: bool = True
    blocks: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_WIDTH:
            raise ValueError(f"rank must be from 1 to {MAX_WIDTH}")
        if self.alpha is not None and not 0 < self.alpha <= MAX_WIDTH:
            raise ValueError(f"alpha must be positive and at most {MAX_WIDTH}")

    @property
    def scale(self) -> float:
        """What the changes are multiplied by."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Lora(LowRank):
    """The changes while they are trained: a fresh one changes nothing."""

    def __init__(self, config: LoraConfig, base: Transformer) -> None:
        matrices = matrices_of(base, config.text)
        chosen = {name: each for name, each in matrices.items() if name.startswith("blocks.") or not config.blocks}
        super().__init__(chosen, config.rank)
        self.config = config

    @contextmanager
    def attached(self, base: Transformer) -> Iterator[None]:
        """In the block `base` answers as with these changes, and gradients lead to them. Beside each matrix runs the
        narrow way through its change, so that no changed matrix is ever made."""
        layers = dict(base.named_modules())
        hooks = []
        for key in self.up:
            layer = layers[key.replace("/", ".").removesuffix(".weight")]
            hooks.append(layer.register_forward_hook(self._beside(key)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _beside(self, key: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_layer: nn.Module, given: tuple[Tensor, ...], said: Tensor) -> Tensor:
            down, up = self.down[key], self.up[key]
            narrow = F.linear(given[0].to(down.dtype), down)
            return said + (F.linear(narrow.to(up.dtype), up) * self.config.scale).to(said.dtype)

        return add

    def save(self, path: str | Path, model: str) -> None:
        """Writes the file that `read_lora` reads; `model` is the name of what it was made for. Raises ModelError."""
        tensors = {}
        for name, (down, up) in self.parts().items():
            tensors[name + A], tensors[name + B] = down.half(), up.half()
        write_lora(tensors, {"model": model, "lora": json.dumps(asdict(self.config))}, path)

    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The two parts of each change, [rank, columns] and [rows, rank] on the CPU, by the name of its layer."""

        def given(part: Tensor) -> Tensor:
            return part.detach().to("cpu", torch.float32, copy=True)

        names = {key: key.replace("/", ".").removesuffix(".weight") for key in self.up}
        return {name: (given(self.down[key]), given(self.up[key])) for key, name in names.items()}


def write_lora(tensors: dict[str, Tensor], about: dict[str, str], path: str | Path) -> None:
    """Writes a LoRA's file, whole or not at all; `about` is what it says of itself. Raises ModelError."""
    temporary = Path(f"{path}.part")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"format": "pt"} | about)
        _sort_header(temporary)
        temporary.chmod(0o644)  # safetensors makes it private
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(f"cannot write {path} ({unwritten(error)}); is the disk full?") from None


def _sort_header(path: Path) -> None:
    """Puts what a safetensors file says of itself in order, which the library leaves to chance: so that the same LoRA
    is the same file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        said = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(said) <= length:  # as it is but for an order, unless the library should come to escape otherwise
            file.seek(8)
            file.write(said.ljust(length))


# ---- use -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraUse:
    """A LoRA's file, and how much of it: 1 is as it was trained. `sha256` is that of the file as it was loaded."""

    path: str
    scale: float = 1.0
    sha256: str = ""

    def __str__(self) -> str:
        return (
            self.path if self.scale == 1 and parse_lora(self.path).path == self.path else f"{self.path}:{self.scale!r}"
        )


def parse_lora(text: str) -> LoraUse:
    """FILE or FILE:SCALE, the latter where the last part is a number. Raises ModelError."""
    path, colon, number = text.rpartition(":")
    if colon and path:
        try:
            scale = float(number)
        except ValueError:
            return LoraUse(text)
        if not -MAX_SCALE <= scale <= MAX_SCALE:
            raise ModelError(f"a LoRA's scale is from {-MAX_SCALE:g} to {MAX_SCALE:g}, not {number[:20]}")
        return LoraUse(path, scale)
    return LoraUse(text)


def known_by_content(use: LoraUse) -> LoraUse:
    """The same use, which says what is in the file."""
    return replace(use, sha256=weights_digest(Path(use.path)))


@torch.no_grad()
def add_loras(transformer: Transformer, uses: Sequence[LoraUse]) -> None:
    """Adds what the files say to the transformer's weights, in float32. Raises ModelError for a file that is broken or
    made for another transformer."""
    weights = dict(transformer.named_parameters())
    added: dict[str, Tensor] = {}
    for use in uses:
        for name, change in read_lora(use.path).items():
            if name not in weights or weights[name].shape != change.shape:
                raise ModelError(f"{use.path} was made for another model: it changes {name} {list(change.shape)}")
            added[name] = added.get(name, 0) + use.scale * change
    for name, change in added.items():
        weights[name].copy_(weights[name].float() + change.to(weights[name].device))


def read_lora(path: str | Path) -> dict[str, Tensor]:
    """The change float32 [rows, columns] of each matrix, by its name. Raises ModelError."""
    about, stored = read_file(path)
    try:
        settings = json.loads(about.get("lora", "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is broken or no LoRA ({first_line(error)}); copy it again") from None
    tensors = {name: tensor.float() for name, tensor in stored.items()}
    alpha = settings.get("alpha") if isinstance(settings, dict) else None
    if not (alpha is None or (isinstance(alpha, (int, float)) and 0 < alpha <= MAX_WIDTH)):
        raise ModelError(f"{path}: its alpha is no number above 0; copy it again")
    changes = {}
    for name in sorted(key.removesuffix(A) for key in tensors if key.endswith(A)):
        down, up = tensors.pop(name + A), tensors.pop(name + B, None)
        if up is None or 0 in down.shape or down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0]:
            raise ModelError(f"{path}: the two parts of {name} do not fit; copy it again")
        changes[f"{name}.weight"] = (up @ down) * (1.0 if alpha is None else alpha / len(down))
    if tensors or not changes:
        left = next(iter(tensors), "nothing")
        raise ModelError(f"{path} is no LoRA that is known here: it holds {left[:80]}")
    return changes


def read_file(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a LoRA's file says of itself, and its tensors, memory-mapped: floats that are finite, but for alphas, which
    may be whole numbers. Raises ModelError."""
    if not os.path.isfile(path):
        raise ModelError(f"there is no LoRA {str(path)[:120]!r}: give the .safetensors file")
    try:
        refuse_pickle(Path(path))
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is broken or no LoRA ({first_line(error)}); copy it again") from None
    if not tensors:
        raise ModelError(f"{path} is no LoRA that is known here: it holds nothing")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and not (name.endswith(".alpha") and tensor.dtype in WHOLE):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"{path} is no LoRA that is known here: {name[:80]} is of type {kind}, not of floats")
        if not tensor.float().isfinite().all():
            raise ModelError(f"{path} has numbers that are not finite, in {name[:80]}: copy it, or train it, again")
    return about, tensors
