"""Training: losses, loops, data and checkpoints, from a TOML file, on one CPU or one GPU.

`run(stage, config)` is what `yozora train STAGE CONFIG` calls; `scripts/train_mini.sh` shows the stages in their order.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from yozora.errors import ConfigError

__all__ = ["STAGES", "run"]

STAGES = {  # name: module, function, class of its configuration
    "autoencoder": ("autoencoder", "train_autoencoder", "AutoencoderStage"),
    "text": ("text", "train_text_encoder", "TextStage"),
    "latents": ("latents", "build_pool", "LatentsStage"),
    "transformer": ("transformer", "train_transformer", "TransformerStage"),
    "distill": ("distill", "train_few_steps", "DistillStage"),
    "bundle": ("bundle", "make_bundle", "BundleStage"),
    "enhancer": ("enhancer", "train_enhancer", "EnhancerStage"),
    "inspector": ("inspector", "train_inspector", "InspectorStage"),
    "reader": ("reader", "train_reader", "ReaderStage"),
}


def run(stage: str, config: Path, overrides: Sequence[str] = (), resume: bool = True) -> Path:
    """Runs a stage from its TOML file and returns the folder it wrote. Raises ConfigError for bad settings."""
    from yozora.train import config as configs

    if stage not in STAGES:
        raise ConfigError(f"unknown stage {stage!r}; there are: {', '.join(STAGES)}")
    module, function, settings = STAGES[stage]
    checked = configs.read_config(getattr(configs, settings), config, overrides)
    return getattr(importlib.import_module(f"yozora.train.{module}"), function)(checked, resume)
