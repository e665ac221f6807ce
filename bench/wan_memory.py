"""How much memory do the open weights need? Counted on networks that are never allocated; no weights are needed.

Weights are bfloat16, but for what stays float32. "A step" is an estimate: what a block holds at once of every token at
the model's size and length, with guidance (two clips in a batch).
"""

from __future__ import annotations

import argparse
import importlib

import torch
from common import show_table, write_results
from torch import nn

from yozora.create.generator import grid_of
from yozora.models.transformer import Transformer
from yozora.models.wan import PRESETS, stays_exact
from yozora.models.wan_autoencoder import WAN21_AUTOENCODER, WAN22_AUTOENCODER, WanAutoencoder
from yozora.models.wan_folder import CARDS, COMMON
from yozora.models.wan_text import UMT5_XXL

GIB = 2**30
HELD = 30  # bytes a token and channel: the stream, its normed copy, queries, keys and values, and these turned


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    library = importlib.import_module("transformers")
    with torch.device("meta"):
        text = weights(library.UMT5EncoderModel(library.UMT5Config(**UMT5_XXL)), exact=False)
    rows, results = [], {}
    for name, config in PRESETS.items():
        autoencoder = WAN22_AUTOENCODER if config.channels == WAN22_AUTOENCODER.channels else WAN21_AUTOENCODER
        with torch.device("meta"):
            transformer, codec = weights(Transformer(config), exact=True), weights(WanAutoencoder(autoencoder), False)
        card = COMMON | CARDS[name]
        width, height = card["sizes"][0]
        tokens = grid_of(autoencoder, config).tokens(width, height, card["frames_max"])
        step = 2 * tokens * config.width * HELD
        figures = {"transformer": transformer, "autoencoder": codec, "text encoder": text, "a step": step}
        results[name] = figures | {"size": [width, height], "frames": card["frames_max"], "tokens": tokens}
        device = transformer + codec + step
        shape = f"{width}x{height}, {card['frames_max']} frames"
        rows.append([name, shape, f"{tokens}", *(f"{each / GIB:.1f}" for each in (*figures.values(), device))])
    columns = ["model", "size", "tokens", "transformer", "autoencoder", "text encoder (CPU)", "a step", "on the GPU"]
    show_table("memory, GiB", columns, rows)
    write_results("wan_memory", {"bytes": results})


def weights(module: nn.Module, exact: bool) -> int:
    """Bytes of a module's weights as they are loaded in bfloat16."""
    return sum(tensor.numel() * (4 if exact and stays_exact(name) else 2) for name, tensor in module.named_parameters())


if __name__ == "__main__":
    main()
