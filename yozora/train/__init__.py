"""Training: losses, loops, data and checkpoints, from a TOML file, on one CPU or one GPU.

`run("autoencoder" | "latents" | "text" | "transformer" | "inspector", config)` is what `yozora train` calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yozora.errors import ConfigError

__all__ = ["STAGES", "run"]

STAGES = ("autoencoder", "latents", "text", "transformer", "inspector")


def run(stage: str, config: Path, overrides: Sequence[str] = (), resume: bool = True) -> Path:
    """Runs a stage from its TOML file and returns the folder it wrote. Raises ConfigError for bad settings."""
    from yozora.train import config as configs

    if stage == "autoencoder":
        from yozora.train.autoencoder import train_autoencoder

        return train_autoencoder(configs.read_config(configs.AutoencoderStage, config, overrides), resume)
    if stage == "latents":
        from yozora.train.latents import build_pool

        return build_pool(configs.read_config(configs.LatentsStage, config, overrides), resume)
    if stage == "text":
        from yozora.train.text import train_text_encoder

        return train_text_encoder(configs.read_config(configs.TextStage, config, overrides), resume)
    if stage == "transformer":
        from yozora.train.transformer import train_transformer

        return train_transformer(configs.read_config(configs.TransformerStage, config, overrides), resume)
    if stage == "inspector":
        from yozora.train.inspector import train_inspector

        return train_inspector(configs.read_config(configs.InspectorStage, config, overrides), resume)
    raise ConfigError(f"unknown stage {stage!r}; there are: {', '.join(STAGES)}")
