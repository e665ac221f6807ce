"""Transformers by the name of their size, for training: `[model]` may begin with `preset = "small"`."""

from __future__ import annotations

from yozora.models.transformer import TransformerConfig
from yozora.models.wan import PRESETS as OPEN_WEIGHTS

PRESETS = {
    "small": TransformerConfig(width=1024, depth=18, heads=16, text_width=512, absolute=True),  # 313 M
    **OPEN_WEIGHTS,
}
