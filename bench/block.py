"""One block of Wan in Yozora and in diffusers, on a CPU: the same random weights and tokens, by turns in one process.

A step of sampling is such blocks and little else. Both do guidance: ours two clips in one batch, with the keys and
values of the prompts at hand, diffusers one after the other, as its pipeline does. The time is the processor's, of all
threads, so that it means something where other programs compete for the cores; run it with one thread. Distances are
from diffusers' block in float32, of what the block adds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import statistics
import time
from typing import Any

import torch
from common import show_table, write_results
from torch import Tensor

from yozora.models.positions import rotary_table
from yozora.models.running import Blocks, Running
from yozora.models.transformer import Block
from yozora.models.wan import PRESETS, stays_exact, transformer_keys


@torch.inference_mode()
def main() -> None:
    options = parse()
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS[options.model], depth=1)
    theirs = importlib.import_module("diffusers.models.transformers.transformer_wan").WanTransformerBlock(
        config.width, config.ffn_width, config.heads, cross_attn_norm=True, eps=config.eps
    )
    plain = Block(config)
    state = {f"blocks.0.{name}": tensor for name, tensor in theirs.state_dict().items()}
    for name, names in transformer_keys(1).items():
        if name.startswith("blocks.0."):
            place = plain.get_parameter(name.removeprefix("blocks.0."))
            place.copy_(torch.cat([state[each] for each in names]).reshape(place.shape))

    grid = (1 + (options.frames - 1) // 4, options.side // 16, options.side // 16)
    tokens, frames = grid[0] * grid[1] * grid[2], grid[0]
    x, text = torch.randn(2, tokens, config.width), torch.randn(2, 512, config.width)
    told = 0.1 * torch.randn(2, 6, config.width)
    table = rotary_table(config.head_width, grid, x.device)
    turn = tuple(each.repeat_interleave(2, -1)[None, :, None] for each in table.unbind(-1))

    def their_answer(dtype: torch.dtype) -> Tensor:
        rows = [theirs(*(each[n : n + 1].to(dtype) for each in (x, text)), told[n : n + 1], turn) for n in (0, 1)]
        return torch.cat(rows).float() - x

    exact = their_answer(torch.float32)
    for name, parameter in (*theirs.named_parameters(), *plain.named_parameters()):
        kept = "scale_shift_table" in name or "norm2" in name or stays_exact(name)
        kept = kept and not name.startswith("attn")  # whose norms diffusers has in the type of the rest
        parameter.data = parameter.data if kept else parameter.data.bfloat16()
    prompt = plain.cross.key_value(text.bfloat16())
    ours: Any = Blocks(Running(compiled=options.compile), x.device, torch.bfloat16).ready(plain)
    given = (x.unflatten(1, (frames, -1)), told[:, None, None], table, prompt, None)
    runs = {"ours": lambda: ours(*given).flatten(1, 2) - x, "diffusers": lambda: their_answer(torch.bfloat16)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    far = {}
    for _ in range(1 + options.repeats):
        for name, run in runs.items():
            begun = time.process_time()
            answer = run()
            seconds[name].append(time.process_time() - begun)
            far[name] = float((answer - exact).norm() / exact.norm())
    took = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    ratio = took["diffusers"] / took["ours"]
    title = f"a block of {options.model}, {options.frames} frames of {options.side}²: 2 x {tokens} tokens, bfloat16"
    rows = [["seconds of the processor", *(f"{took[name]:.3f}" for name in runs), f"{ratio:.2f} times as fast"],
            ["distance from float32", *(f"{far[name]:.2%}" for name in runs), ""]]  # fmt: skip
    show_table(title, ["", *runs, "ours to diffusers'"], rows)
    write_results("block", {"options": vars(options), "seconds": seconds, "times as fast": ratio, "from float32": far})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=tuple(PRESETS), default="wan2.1-1.3b")
    parser.add_argument("--side", type=int, default=256, help="pixels, a multiple of 16")
    parser.add_argument("--frames", type=int, default=17, help="1 + 4k")
    parser.add_argument("--compile", action="store_true", help="ours compiled")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
