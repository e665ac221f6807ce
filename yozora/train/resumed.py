"""What a checkpoint says of the run that wrote it, beside its tensors: the networks' sizes, some of which no tensor's
shape shows, and the stage's settings. A run that goes on compares both with its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

from torch import nn

from yozora.train.config import Section

FREE = (
    "out",
    "device",
    "workers",
    "steps",
    "checkpoint_seconds",
    "log_every",
    "sample_every",
    "wandb",
)  # to be changed

Said = dict[str, Any]
"""What JSON can say."""


def settings_of(stage: Section, without: Collection[str] = ()) -> Said:
    """A stage's settings, but for those that a run may change on its way, and for the sections `without`."""
    said = stage.model_dump(exclude={"run": set(FREE), **dict.fromkeys(without, True)})
    return json.loads(json.dumps(said, default=str))


def sizes_of(model: nn.Module) -> Said:
    """The configurations of the networks that are trained together, by their names; of one alone, by "model"."""
    networks = {"model": model, **dict(model.named_children())}
    configs = {name: getattr(network, "config", None) for name, network in networks.items()}
    said = {
        name: dataclasses.asdict(config)
        for name, config in configs.items()
        if dataclasses.is_dataclass(config) and not isinstance(config, type)
    }
    return json.loads(json.dumps(said, default=str))


def misfit(before: Said, now: Said, within: str = "") -> str:
    """The first size that is not the same there and here, in words; "" where there is none. What one of them does not
    name is no difference: earlier versions knew less."""
    for key in sorted(before.keys() & now.keys()):
        one, other = before[key], now[key]
        if isinstance(one, dict) and isinstance(other, dict):
            if problem := misfit(one, other, f"{within}{key}."):
                return problem
        elif one != other:
            return f"{within}{key} is {one} in the checkpoint and {other} here"
    return ""


def changed(before: Said, now: Said, within: str = "") -> list[str]:
    """The names of settings that are not the same."""
    names = []
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += changed(one, other, f"{within}{key}.")
        elif one != other:
            names.append(within + key)
    return names
