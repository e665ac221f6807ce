"""Transformers by the name of their size, for training: `[model]` may begin with `preset = "small"`."""

from __future__ import annotations

from yozora.models.transformer import TransformerConfig

PRESETS = {
    "small": TransformerConfig(width=1024, depth=18, heads=16, text_width=512, absolute=True),  # 313 M
    "wan2.1-1.3b": TransformerConfig(channels=16, width=1536, depth=30, heads=12, ffn=8960 / 1536, text_width=4096),
}
