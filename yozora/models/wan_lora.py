"""LoRAs for Wan as other programs write them: diffusers, peft, kohya and musubi, and the original release's names; and
ours, written as diffusers does.

Each names a module, of either layout, and gives two narrow matrices for it (lora_A and lora_B, or lora_down and
lora_up) and their alpha, or a whole difference (diff, diff_b), as few-step LoRAs do for norms and biases. What they
change is worked out one tensor at a time, while the weights are loaded. LoRAs of Yozora's own are read, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from yozora.errors import ModelError
from yozora.models.lora import Lora, LoraUse, read_file, read_lora, write_lora
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan import transformer_keys

PREFIXES = ("base_model.model.", "model.", "diffusion_model.", "transformer.")
KOHYA = "lora_unet_"  # and dots are underscores
DOWN, UP, ALPHA, WHOLE, BIAS, UP_BIAS = "down", "up", "alpha", "whole", "bias", "bias of up"
ENDINGS = {  # of a tensor's name → which part of a change it is
    ".lora_A.weight": DOWN, ".lora_A.default.weight": DOWN, ".lora_down.weight": DOWN,
    ".lora_B.weight": UP, ".lora_B.default.weight": UP, ".lora_up.weight": UP,
    ".alpha": ALPHA, ".diff": WHOLE, ".diff_b": BIAS, ".lora_B.bias": UP_BIAS,
}  # fmt: skip
MODULATION = ".diff_m"  # of a block or the head: what its `modulation`, a tensor by itself, is changed by


@dataclass(frozen=True, eq=False)
class Piece:
    """What is added to part `index` of `count`, by rows, of our tensor `name`: `make()` of `rows` rows."""

    name: str
    index: int
    count: int
    rows: int
    numbers: int
    make: Callable[[], Tensor]


class WanChanges(Mapping[str, Tensor]):
    """Our names → what all files together add to those tensors, float32, worked out when asked for."""

    def __init__(self, uses: Sequence[LoraUse], config: TransformerConfig) -> None:
        """Raises ModelError for a file that is broken or made for another transformer."""
        with torch.device("meta"):
            self._shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
        self._pieces: dict[str, list[Piece]] = {}
        modules = module_names(config)
        for use in uses:
            _, tensors = read_file(use.path)
            own = all(name.split(".lora_")[0] + ".weight" in self._shapes for name in tensors)
            for piece in own_pieces(use) if own else pieces_of(use, tensors, modules, self._shapes):
                shape = self._shapes.get(piece.name)
                if shape is None or (piece.rows * piece.count, piece.numbers * piece.count) != (
                    shape[0],
                    shape.numel(),
                ):
                    raise ModelError(f"{use.path} was made for another model: it does not fit {piece.name}")
                self._pieces.setdefault(piece.name, []).append(piece)

    def __getitem__(self, name: str) -> Tensor:
        pieces = self._pieces[name]
        total = torch.zeros(self._shapes[name])
        for piece in pieces:
            part = total.chunk(piece.count)[piece.index]
            part += piece.make().reshape(part.shape)
        return total

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def module_names(config: TransformerConfig) -> dict[str, tuple[str, int, int]]:
    """Names that a LoRA may give a module → ours, and which part of how many of its rows that is."""
    names = {}
    for layout in ("diffusers", "original"):
        for ours, theirs in transformer_keys(config.depth, layout, config.cross_norm).items():
            for index, name in enumerate(theirs):
                place = ours.removesuffix(".weight").removesuffix(".bias"), index, len(theirs)
                module = name.removesuffix(".weight").removesuffix(".bias")
                names[module] = names[KOHYA + module.replace(".", "_")] = place
    return names


def own_pieces(use: LoraUse) -> list[Piece]:
    """What a LoRA of Yozora's own adds."""
    changes = read_lora(use.path)
    return [
        Piece(name, 0, 1, len(change), change.numel(), lambda change=change: use.scale * change)
        for name, change in changes.items()
    ]


def pieces_of(
    use: LoraUse,
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, tuple[str, int, int]],
    shapes: Mapping[str, torch.Size],
) -> Iterator[Piece]:
    """What another program's LoRA adds to tensors of these shapes. Raises ModelError."""
    for (name, index, count), (module, parts) in found_parts(use, tensors, modules).items():
        missing = (DOWN in parts) != (UP in parts) or (DOWN not in parts and (ALPHA in parts or UP_BIAS in parts))
        if missing:
            raise ModelError(f"{use.path}: of {module}, one part is missing; copy it again")
        if any(not parts[kind].ndim for kind in (WHOLE, BIAS, UP_BIAS) if kind in parts):
            raise ModelError(f"{use.path}: what is added to {module} is one number; copy it again")
        scale = use.scale
        if DOWN in parts:
            down, up = (parts[kind].flatten(1) if parts[kind].ndim > 1 else parts[kind] for kind in (DOWN, UP))
            if down.ndim < 2 or up.ndim < 2 or not len(down) or up.shape[1] != len(down):
                raise ModelError(f"{use.path}: the two parts of {module} do not fit; copy it again")
            if ALPHA in parts and parts[ALPHA].numel() != 1:
                raise ModelError(f"{use.path}: the alpha of {module} is not one number; copy it again")
            scale *= float(parts[ALPHA]) / len(down) if ALPHA in parts else 1.0

            def product(up: Tensor = up, down: Tensor = down, scale: float = scale) -> Tensor:
                return scale * (up.float() @ down.float())

            yield Piece(f"{name}.weight", index, count, len(up), len(up) * down.shape[1], product)
        for kind, tail, times in ((WHOLE, "weight", use.scale), (BIAS, "bias", use.scale), (UP_BIAS, "bias", scale)):
            if kind in parts:
                whole, tensor = parts[kind], f"{name}.{tail}"
                if kind == WHOLE and name in shapes:  # which is no module, but a tensor by itself
                    tensor = name
                    if whole.shape[-len(shapes[name]) :] == shapes[name] and whole.numel() == shapes[name].numel():
                        whole = whole.reshape(shapes[name])  # without a batch's axis
                yield Piece(
                    tensor, index, count, len(whole), whole.numel(),
                    lambda whole=whole, times=times: times * whole.float(),
                )  # fmt: skip


def found_parts(
    use: LoraUse, tensors: Mapping[str, Tensor], modules: Mapping[str, tuple[str, int, int]]
) -> dict[tuple[str, int, int], tuple[str, dict[str, Tensor]]]:
    """A LoRA's tensors by the place in ours that they change, with a name of it there. Raises ModelError."""
    found: dict[tuple[str, int, int], tuple[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        if key.endswith(MODULATION):
            key = f"{key.removesuffix(MODULATION)}.modulation.diff"
        ending = next((ending for ending in ENDINGS if key.endswith(ending)), None)
        module = key.removesuffix(ending or "")
        for prefix in PREFIXES:
            module = module.removeprefix(prefix)
        if ending is None or module not in modules:
            raise ModelError(f"{use.path} is no LoRA for this model: it changes {key[:100]}")
        module, parts = found.setdefault(modules[module], (module, {}))
        if ENDINGS[ending] in parts:
            raise ModelError(f"{use.path} changes {module} twice, by two names; copy it again")
        parts[ENDINGS[ending]] = tensor
    return found


def save_wan_lora(lora: Lora, base: TransformerConfig, path: str | Path, model: str) -> None:
    """Writes a LoRA of a transformer of Wan by diffusers' names, for `--lora` and for other programs: `model` is the
    name of what it was made for. What one matrix of ours changes in several of theirs, several pairs say, of which the
    first parts are the same. Raises ModelError."""
    tensors = {}
    names = transformer_keys(base.depth, "diffusers", base.cross_norm)
    for name, (down, up) in lora.parts().items():
        theirs = names[f"{name}.weight"]
        for each, rows in zip(theirs, (lora.config.scale * up).chunk(len(theirs)), strict=True):
            first, second = down.half(), rows.half()
            if name == "patch":  # a convolution there
                first = first.reshape(len(first), base.channels, *base.patch)
                second = second[..., None, None, None]
            module = f"transformer.{each.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = first.clone()
            tensors[f"{module}.lora_B.weight"] = second.contiguous()
    write_lora(tensors, {"model": model}, path)
