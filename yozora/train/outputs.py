"""Where fine-tuning must not write: over a model, or over what is learned from."""

from __future__ import annotations

from pathlib import Path

from yozora.errors import ConfigError, ModelError
from yozora.models.folder import read_header

ENDING = ".safetensors"


def check_lora_file(output: Path, base: Path) -> None:
    """Raises ConfigError where a LoRA of the model in `base` cannot become the file `output`: of what is there only
    another LoRA may be replaced."""
    if output.is_dir() or not output.name:
        raise ConfigError(f"{output} cannot be written: name a file with -o")
    if output.suffix != ENDING:
        raise ConfigError(f"{output} cannot be written: a LoRA's file ends in {ENDING}")
    if base.resolve() in output.resolve().parents:
        raise ConfigError(f"{output} is in the model that is learned from: name another file with -o")
    if output.exists() and not _is_lora(output):
        raise ConfigError(f"{output} is there and is no LoRA: name another file with -o")


def _is_lora(path: Path) -> bool:
    """Whether it is a file of low-rank changes, by the names in it: those of whole weights are others."""
    try:
        return any("lora_" in name for name in read_header(path))
    except ModelError:
        return False
