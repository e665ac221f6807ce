"""How much memory do the open weights need, and what does each switch save? No weights are needed: the networks are run
on torch's meta device, which computes nothing, at the model's size and length, while what they hold is counted.

Weights are bfloat16, but for what stays float32. Attention is counted as a fused kernel does it, without scores. What a
library allocates for itself (a GPU's context, workspaces of convolutions, fragments) comes on top: half a gigabyte to
one.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import weakref
from typing import Any

import torch
from common import show_table, write_results
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from yozora.create.generator import grid_of
from yozora.models import wan_layers
from yozora.models.quantised import in_eight_bits
from yozora.models.tiled import Tiled
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan import PRESETS, is_coarse, stays_exact
from yozora.models.wan_autoencoder import WAN21_AUTOENCODER, WAN22_AUTOENCODER, WanAutoencoder
from yozora.models.wan_folder import CARDS, COMMON
from yozora.models.wan_text import UMT5_XXL

GIB = 2**30
TILE = 256
SWITCHES = ("", "--weights int8", "--offload cpu", "--weights int8 --offload cpu")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    library = importlib.import_module("transformers")
    with torch.device("meta"):
        text = stored(library.UMT5EncoderModel(library.UMT5Config(**UMT5_XXL)).bfloat16())
    print(f"text encoder, on the CPU: {text / GIB:.1f} GiB")
    rows, results = [], {}
    for name, config in PRESETS.items():
        autoencoder = WAN22_AUTOENCODER if config.channels == WAN22_AUTOENCODER.channels else WAN21_AUTOENCODER
        card = COMMON | CARDS[name]
        size, frames = card["sizes"][0], card["frames_max"]
        grid = grid_of(autoencoder, config).latent_shape(size[0], size[1], frames)
        with torch.device("meta"):
            codec = WanAutoencoder(autoencoder)
        for part, parameter in codec.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if is_coarse(part, autoencoder) else torch.bfloat16)
        decode = {tile: decoding(codec, grid, tile) for tile in (0, TILE)}
        for switches in SWITCHES:
            offload = "offload" in switches
            weights, step = transformer(config, grid, "int8" in switches, offload)
            told = [weights, stored(codec), step, decode[0], decode[TILE]]
            halves = stored(codec.decoder) if offload else stored(codec)  # which then has its place while it is at work
            most = [weights + max(step + (0 if offload else halves), halves + decode[tile]) for tile in (0, TILE)]
            results[f"{name} {switches}".strip()] = told + most
            shape = f"{size[0]}x{size[1]}, {frames}"
            rows.append([name, shape, switches or "none", *(f"{each / GIB:.1f}" for each in (*told, *most))])
    columns = ["model", "size, frames", "switches", "transformer", "autoencoder", "a step", "decoding",
               f"--tile {TILE}", "on the GPU", f"with --tile {TILE}"]  # fmt: skip
    show_table("memory, GiB", columns, rows)
    write_results("wan_memory", {"text encoder": text, "bytes": results})


class Counted(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while this lasts, and the `peak` of those held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage())
        return made

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.alive:
            return

        def gone(_: Any) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def stored(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(parameter.nbytes for parameter in module.parameters())


@torch.no_grad()
def transformer(
    config: TransformerConfig, grid: tuple[int, int, int], eight_bits: bool, offload: bool
) -> tuple[int, int]:
    """Bytes of the weights that lie on the device, and of what a step with guidance (two clips in a batch) holds."""
    with torch.device("meta"):
        model = Transformer(dataclasses.replace(config, depth=1))
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if stays_exact(name) else torch.bfloat16)
        if eight_bits:
            in_eight_bits(model.blocks[0], "int8")
        block, all_of_it = stored(model.blocks[0]), stored(model)
        latents, levels = torch.empty(2, config.channels, *grid), torch.empty(2, grid[0])
        prompt = model.prepare_text(torch.empty(2, 512, config.text_width))
        texts = config.depth * sum(each.nbytes for each in prompt[0])
        fused = (lambda q, k, v, bias=None: torch.empty_like(q),) * 2
        model.register_module("time", Times(config.width))
        with Counted() as counted:
            entered = model.enter(latents, levels, prompt, None)
            x = model.blocks[0](entered.x, *entered.given[0], fused)
            model.leave(x, entered)
    blocks = block * (min(2, config.depth) if offload else config.depth)
    return all_of_it - block + blocks, counted.peak + texts


class Times(nn.Module):
    """Stands for the time embedding, whose autocast the meta device does not know; it holds next to nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, levels: Tensor, spans: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.empty(*levels.shape, self.width), torch.empty(*levels.shape, 6, self.width)


@torch.no_grad()
def decoding(codec: WanAutoencoder, grid: tuple[int, int, int], tile: int) -> int:
    """Bytes of what decoding a latent frame holds, with what it remembers of those before."""
    kept, wan_layers.attend = wan_layers.attend, lambda q, k, v, bias=None: torch.empty_like(q)
    try:
        decoder = Tiled(codec, tile) if tile else codec
        with torch.device("meta"), Counted() as counted:
            latents = torch.empty(1, codec.config.channels, 3, *grid[1:])
            if isinstance(decoder, Tiled):
                decoder.home = torch.device("meta")
                frames, _ = decoder.decode_chunk(latents, None, keep=False)
                return counted.peak - frames.nbytes  # which lie in the computer's memory
            decoder.decode_chunk(latents, None)
        return counted.peak
    finally:
        wan_layers.attend = kept


if __name__ == "__main__":
    main()
