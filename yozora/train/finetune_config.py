"""What fine-tuning is: the settings that a user gives, and the stages that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from yozora.train.config import Checkpointing, FlowLessons, Footage, Optim, Run, Section


class TuneStage(FlowLessons):
    """Fine-tuning of the transformer of `start_from`, a model folder, called `name`. `states`: where the text encoder
    of an open model has written down what it makes of the captions."""

    start_from: Path
    name: str
    states: Path
    checkpointing: Checkpointing = "none"


class LoraStage(TuneStage):
    """`yozora train lora`. [model] is the LoRA's `rank`, `alpha`, `text` and `blocks`."""

    model: dict[str, Any] = Field(default_factory=dict)


class Finetune(Section):
    """What `yozora train lora` and `yozora train finetune` make of a folder of clips. Lessons are of `batch` clips of
    one size and length; `languages`, `details` and the like are the captions' own affair. Where a model has learned
    from the simulated world, `prior` scenes of it are added for each clip, so that less of it is forgotten (None: one
    for two)."""

    footage: Footage
    batch: int = Field(default=4, gt=0)
    prior: float | None = Field(default=None, ge=0, le=8)
    drop_prompt: float = Field(default=0.1, ge=0, le=1)
    anchored: float = Field(default=0.4, ge=0, le=1)
    level_std: float = Field(default=1.0, gt=0, le=10)
    checkpointing: Checkpointing = "none"
    compile: bool = False
    run: Run
    optim: Optim
    model: dict[str, Any] = Field(default_factory=dict)
