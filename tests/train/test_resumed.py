"""What a run that goes on compares with its checkpoint besides the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_loop import OPTIM, Regression, run

from yozora.errors import ConfigError
from yozora.train.config import InspectorStage
from yozora.train.loop import fit
from yozora.train.resumed import settings_of

BUCKET = {"width": 32, "height": 32, "frames": 1, "batch": 1}


@dataclass
class Heads:
    heads: int
    widths: tuple[int, ...] = (4, 8)


def with_heads(heads: int | None) -> Regression:
    """A task whose network has a configuration, one part of which no shape shows; None: it has none."""
    task = Regression()
    if heads is not None:
        task.model.config = Heads(heads)  # type: ignore[assignment]
    return task


def test_a_checkpoint_of_a_network_of_equal_shapes_is_refused_by_its_configuration(tmp_path: Path) -> None:
    fit(with_heads(None), run(tmp_path, steps=1), OPTIM)
    fit(with_heads(2), run(tmp_path, steps=2), OPTIM)  # a checkpoint of an earlier version says nothing
    with pytest.raises(ConfigError, match=r"model\.heads is 2 in the checkpoint and 1 here\); use --no-resume"):
        fit(with_heads(1), run(tmp_path, steps=3), OPTIM)
    fit(with_heads(2), run(tmp_path, steps=3), OPTIM)


def test_settings_that_have_changed_since_the_checkpoint_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw: dict[str, Any] = {"run": {"out": tmp_path, "steps": 1, "device": "cpu"}, "optim": {"adamw": 0.01}}

    def learn(steps: int, resume: bool = True, free: dict[str, Any] | None = None, **changes: Any) -> str:
        given = {**raw, **changes, "run": raw["run"] | {"steps": steps} | changes.get("run", {}) | (free or {})}
        stage = InspectorStage.model_validate({"world": {"buckets": [BUCKET]}, **given})
        fit(Regression(), stage.run, stage.optim, resume, settings=settings_of(stage))
        return capsys.readouterr().out

    assert "other settings" not in learn(1)
    assert "other settings" not in learn(
        2, free={"workers": 3, "log_every": 7, "checkpoint_seconds": 9, "sample_every": 2}
    )
    said = learn(3, run={"seed": 1}, optim={"adamw": 0.02}, world={"buckets": [BUCKET], "mix": "simple"})
    assert "what was learned by other settings (optim.adamw, run.seed, world.mix) stays; --no-resume" in said
    assert "other settings" not in learn(1, resume=False)
