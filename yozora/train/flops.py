"""How many operations a training step of the transformer takes, by the sizes of its matrices."""

from __future__ import annotations

from collections.abc import Sequence

from yozora.models.transformer import TransformerConfig


def step_flops(config: TransformerConfig, lengths: Sequence[int], texts: Sequence[int]) -> float:
    """Operations (a multiplication and an addition are two) of a step forward and backward over clips of so many tokens
    each, with texts of so many. Backward takes twice what forward does; norms and the like do not count, nor what a
    noise level alone needs."""
    width, ffn, text = config.width, config.ffn_width, config.text_width
    matrices = 6 * width**2 + 2 * width * ffn  # queries, keys, values and out; across to the text, queries and out
    ends = config.patch_volume * width * (config.channels + (config.out_channels or config.channels))
    forward = 0.0
    for tokens, words in zip(lengths, texts, strict=True):
        attention = 2 * tokens * width * (tokens + words)
        own = tokens * matrices + words * 2 * width**2 + attention
        forward += config.depth * own + tokens * ends + words * width * (text + width)
    return 3 * 2 * forward
