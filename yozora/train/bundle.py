"""Putting the trained networks together into one model folder, as `yozora.load` takes it.

Matrices and kernels are stored in 8 bits, everything else in 16.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from yozora.models.adapter import Adapter
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module, write_json
from yozora.models.registry import CARD, RETRIEVAL, ModelInfo, load_bundle
from yozora.models.retrieval import RetrievalAdapter
from yozora.models.text import TextEncoder
from yozora.models.transformer import Transformer
from yozora.train.config import BundleStage
from yozora.train.settings import build


def make_bundle(config: BundleStage, resume: bool = True) -> Path:
    """Writes the folder `config.out`, over what was there before. Raises ModelError where the parts do not fit."""
    card = build(ModelInfo, config.card, "card")
    parts = {
        "transformer": (load_module(Transformer, config.transformer / "transformer"), torch.int8),
        "text_encoder": (load_module(TextEncoder, config.transformer / "text_encoder"), torch.int8),
        "autoencoder": (load_module(Autoencoder, config.autoencoder), torch.int8),
    }
    if config.few_steps:
        parts["few_steps"] = (load_module(Adapter, config.few_steps / "few_steps"), torch.int8)
    if config.retrieval:
        parts[RETRIEVAL] = (load_module(RetrievalAdapter, config.retrieval / RETRIEVAL), torch.int8)
    for name, (module, dtype) in parts.items():
        save_module(module, config.out / name, dtype)
    write_json(config.out / CARD, dataclasses.asdict(card))
    load_bundle(config.out)  # what cannot be loaded must not be called done
    return config.out
