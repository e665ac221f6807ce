"""A folder of Wan, as diffusers or the original release lay it out: its parts, its card, and what it makes.

A `model.json` beside them, in the form of Yozora's own, is taken as the card instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yozora.errors import ModelError
from yozora.models.folder import CONFIG, read_json
from yozora.models.mapped import PICKLED, Stored
from yozora.models.transformer import TransformerConfig
from yozora.models.wan import PRESETS, original_autoencoder, read_wan_autoencoder, read_wan_config
from yozora.models.wan_autoencoder import WanAutoencoderConfig

PIPELINE, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
AUTOENCODERS = ("Wan2.1_VAE.pth", "Wan2.2_VAE.pth")
TEXT_ENCODER, TOKENIZER = "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"

P480, P720 = ((832, 480), (480, 832)), ((1280, 720), (720, 1280))
CARDS: dict[str, dict[str, Any]] = {
    "wan2.1-1.3b": {"sizes": P480},
    "wan2.1-14b": {"sizes": (*P480, *P720)},
    "wan2.2-5b": {"sizes": ((1280, 704), (704, 1280)), "fps": 24.0, "frames_max": 121, "shift": 5.0},
}
COMMON = {
    "fps": 16.0, "frames_min": 1, "frames_max": 81, "steps": 50, "guidance": 5.0, "solver": "unipc", "shift": 3.0,
    "large_shift": 5.0, "schedule": "wan", "whole_levels": 1000, "deblock": False,
}  # fmt: skip


@dataclass(frozen=True)
class WanParts:
    """Where the parts of a folder are. `per_token`: whether each token may have a noise level of its own."""

    transformer: Path
    autoencoder: Path
    text_encoder: Path
    tokenizer: Path
    per_token: bool
    shift: float | None


def is_wan(folder: Path) -> bool:
    """Whether a folder is laid out as Wan's models are (and not as Yozora's own)."""
    if (folder / PIPELINE).is_file():
        return True
    return (folder / CONFIG).is_file() and "_class_name" in read_json(folder / CONFIG)


def find_parts(folder: Path) -> WanParts:
    """The parts of a folder of Wan. Raises ModelError for other models, and where a part is missing."""
    if (folder / PIPELINE).is_file():
        return _diffusers_parts(folder)
    fields = read_json(folder / CONFIG)
    autoencoder = next((folder / name for name in AUTOENCODERS if (folder / name).is_file()), folder / AUTOENCODERS[0])
    per_token = fields.get("model_type") == "ti2v"
    return WanParts(folder, autoencoder, folder / TEXT_ENCODER, folder / TOKENIZER, per_token, None)


def _read_pipeline(path: Path) -> bool:
    """Whether, in a pipeline, each token may have a noise level of its own. Raises ModelError for one that Yozora does
    not run."""
    index = read_json(path)
    name, per_token = index.get("_class_name"), bool(index.get("expand_timesteps"))
    if name not in PIPELINES or (name == PIPELINES[1] and not per_token):
        what = f"{path} is of {str(name)[:60]}, which Yozora does not run"
        raise ModelError(f"{what}; it runs Wan's text to video and Wan 2.2 TI2V-5B")
    second = index.get("transformer_2")
    if index.get("boundary_ratio") or (isinstance(second, list) and any(second)):
        raise ModelError(f"{path} has two transformers, which Yozora does not run: take Wan 2.2 TI2V-5B")
    return per_token


def _diffusers_parts(folder: Path) -> WanParts:
    per_token, shift = _read_pipeline(folder / PIPELINE), None
    if (folder / SCHEDULER).is_file():
        shift = read_json(folder / SCHEDULER).get("flow_shift")
    if not (shift is None or isinstance(shift, (int, float))):
        raise ModelError(
            f"{folder / SCHEDULER}: its flow_shift is {str(shift)[:40]!r}, which is no number; copy it again"
        )
    shift = None if shift is None else float(shift)
    text = folder / "text_encoder", folder / "tokenizer"
    return WanParts(folder / "transformer", folder / "vae", *text, per_token, shift)


def check_configs(parts: WanParts) -> None:
    """Raises ModelError where what the configurations of a folder say is no transformer or autoencoder of Wan, of those
    that Yozora runs. The original layout says nothing of its autoencoder."""
    read_wan_config(parts.transformer)
    if parts.autoencoder.suffix != PICKLED:
        read_wan_autoencoder(parts.autoencoder)


def read_configs(parts: WanParts) -> tuple[WanAutoencoderConfig, TransformerConfig]:
    """The configurations of the autoencoder and the transformer. Raises ModelError."""
    transformer, _ = read_wan_config(parts.transformer)
    if parts.autoencoder.suffix != PICKLED:
        return read_wan_autoencoder(parts.autoencoder), transformer
    with Stored(parts.autoencoder) as stored:
        return original_autoencoder(stored), transformer


def card_fields(folder: Path, parts: WanParts, config: TransformerConfig) -> Mapping[str, Any]:
    """The card of a folder that has none of its own: as the model with this transformer was released, or as its
    nearest relative if it is none of these."""
    name = next((name for name, preset in PRESETS.items() if preset == config), None)
    alike = name or ("wan2.2-5b" if parts.per_token else "wan2.1-1.3b")
    fields = COMMON | CARDS[alike] | {"one_level": not parts.per_token}
    if parts.shift not in (None, fields["shift"]):  # another than as released: then it is that of every size
        fields |= {"shift": parts.shift, "large_shift": None}
    levels = "noise levels of its own for every token" if parts.per_token else "one noise level a clip"
    return {"name": name or folder.name, "description": f"open weights (Wan); {levels}"} | fields
