"""Training: losses, loops, data and checkpoints, from a TOML file, on one device; the transformer's on many, too.

`run(stage, config)` is what `yozora train STAGE CONFIG` calls; `scripts/train_mini.sh` shows the stages in their order.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from yozora.errors import ConfigError

__all__ = ["STAGES", "run"]

STAGES = {  # name: module, function, class of its configuration, what it does
    "autoencoder": ("autoencoder", "train_autoencoder", "AutoencoderStage", "The network that compresses video."),
    "text": ("text", "train_text_encoder", "TextStage", "The text encoder learns to read captions."),
    "latents": ("latents", "build_pool", "LatentsStage", "Render, or cut, and encode clips to learn from."),
    "transformer": ("transformer", "train_transformer", "TransformerStage", "The diffusion transformer."),
    "distill": ("distill", "train_few_steps", "DistillStage", "Few steps without guidance, for a transformer."),
    "reward": ("reward", "train_by_reward", "RewardStage", "Few steps learn from what is seen in their own videos."),
    "retrieval": ("retrieval", "train_retrieval", "RetrievalStage", "What shows a transformer clips like the prompt."),
    "bundle": ("bundle", "make_bundle", "BundleStage", "Put trained networks together as a model folder."),
    "enhancer": ("enhancer", "train_enhancer", "EnhancerStage", "The network that enlarges frames."),
    "rewriter": ("rewriter", "train_rewriter", "RewriterStage", "The reader of prompts in anybody's words."),
    "inspector": ("inspector", "train_inspector", "InspectorStage", "The judge of colours and shapes."),
    "reader": ("reader", "train_reader", "ReaderStage", "The judge of all else."),
}
ABOVE = {"weigher": "yozora.captions.learning", "captioner": "yozora.captions.learning"}  # stages of rooms above


def run(
    stage: str,
    config: Path,
    overrides: Sequence[str] = (),
    resume: bool = True,
    stages: Mapping[str, tuple[str, str, str, str]] = STAGES,
) -> Path:
    """Runs a stage of `stages` from its TOML file and returns the folder it wrote; rooms above this one have stages of
    their own, whose modules are named in full. Raises ConfigError for bad settings."""
    from yozora.train.mesh import refuse_several
    from yozora.train.settings import read_config

    if stage not in stages and stage in ABOVE:
        raise ConfigError(f"the stage {stage!r} is not run from here: call {ABOVE[stage]}.run({stage!r}, CONFIG)")
    if stage not in stages:
        raise ConfigError(f"unknown stage {stage!r}; there are: {', '.join(stages)}")
    if stage != "transformer":
        refuse_several(f"yozora train {stage}")
    name, function, settings, _ = stages[stage]
    module = importlib.import_module(name if "." in name else f"yozora.train.{name}")
    return getattr(module, function)(read_config(getattr(module, settings), config, overrides), resume)
