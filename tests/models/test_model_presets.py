"""The presets are of the sizes that their names say; the open one is what diffusers makes of Wan's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from yozora.errors import ConfigError
from yozora.models.presets import PRESETS
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import TransformerStage
from yozora.train.transformer import begin


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_small_has_about_300_million_parameters() -> None:
    with torch.device("meta"):
        assert 290e6 < size(Transformer(PRESETS["small"])) < 320e6


def test_wan_is_as_large_as_wan() -> None:
    config = PRESETS["wan2.1-1.3b"]
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, text_dim=4096, freq_dim=256
        )
        assert size(Transformer(config)) == size(theirs)


def test_training_can_begin_with_one(tiny_model: Path, tmp_path: Path) -> None:
    stage = {
        "pool": tmp_path,
        "autoencoder": tiny_model / "autoencoder",
        "text_encoder": tiny_model / "text_encoder",
        "packed": 16,
        "run": {"out": tmp_path, "steps": 1},
        "optim": {"adamw": 0.01},
    }
    model = {"preset": "small", "width": 48, "heads": 2, "depth": 1}
    transformer, text = begin(TransformerStage.model_validate(stage | {"model": model}), channels=4)
    assert isinstance(text, TextEncoder)
    config = transformer.config
    assert (config.width, config.depth, config.channels, config.absolute) == (48, 1, 4, True)
    with pytest.raises(ConfigError, match=r"model\.preset: there is no 'smal'; known: small, wan2\.1-1\.3b"):
        begin(TransformerStage.model_validate(stage | {"model": {"preset": "smal"}}), channels=4)
