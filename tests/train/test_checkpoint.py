"""Checkpoints of one process: whole or not there, the last few, and told in one line where they do not fit. Those of
several are in test_parallel."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import OPTIM, Regression, run
from torch import nn

from yozora.errors import ConfigError
from yozora.train.checkpoint import KEPT, Checkpoints
from yozora.train.loop import fit


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_is_written_is_what_was_there_when_it_began(tmp_path: Path) -> None:
    """The run goes on while the disk works: the tensors are copied first."""
    checkpoints, state = Checkpoints(tmp_path), {"model.a": torch.zeros(300, 300), "model.b": torch.tensor(1.0)}
    checkpoints.begin(state, {"step": 3, "norms": [0.5]})
    state["model.a"].fill_(7)
    state["model.b"].fill_(7)
    checkpoints.finish()
    assert saved(tmp_path) == ["step-000000003"]
    assert Checkpoints(tmp_path).load(state, []) == {"step": 3, "norms": [0.5]}
    assert not state["model.a"].any() and state["model.b"] == 1


def test_the_last_few_are_kept_and_what_is_not_whole_is_not_one(tmp_path: Path) -> None:
    checkpoints, state = Checkpoints(tmp_path), {"model.a": torch.zeros(2)}
    for step in (1, 2, 30):
        state["model.a"].fill_(step)
        checkpoints.begin(state, {"step": step, "norms": []})
    checkpoints.finish()
    assert saved(tmp_path) == [f"step-{step:09d}" for step in (1, 2, 30)[-KEPT:]]
    (tmp_path / "checkpoints" / "step-000000040.partial").mkdir()
    again = Checkpoints(tmp_path)
    assert again.load(state, []) == {"step": 30, "norms": []} and state["model.a"].eq(30).all()
    assert saved(tmp_path) == [f"step-{step:09d}" for step in (2, 30)]
    again.set_aside()
    assert again.load(state, []) is None


def test_what_nobody_foresaw_in_the_writing_thread_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yozora.train.checkpoint._hush", lambda: None)
    warnings.simplefilter("error")  # which makes an exception of a warning of torch's, in its own thread
    checkpoints = Checkpoints(tmp_path)
    checkpoints.begin({"model.a": torch.zeros(2)}, {"step": 1, "norms": []})
    with pytest.raises(ConfigError, match="cannot write a checkpoint"):
        checkpoints.finish()
    assert saved(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda model: model.append(nn.Linear(4, 4)), "average.3.bias is not in the checkpoint"),
        (lambda model: model.pop(2), "average.2.bias is only in the checkpoint"),
        (lambda model: model.__setitem__(0, nn.Linear(4, 8, bias=False)), "average.0.bias is only in the checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, problem: str) -> None:
    fit(Regression(), run(tmp_path, steps=2), OPTIM)
    other = Regression()
    change(other.model)
    with pytest.raises(ConfigError, match="does not fit this configuration") as caught:
        fit(other, run(tmp_path, steps=4), OPTIM)
    assert problem in str(caught.value) and "--no-resume" in str(caught.value) and "\n" not in str(caught.value)


def test_another_optimiser_is_another_run(tmp_path: Path) -> None:
    fit(Regression(), run(tmp_path, steps=2), OPTIM)
    with pytest.raises(ConfigError, match=r"optimisers\.0\.weight\.exp_avg is not in the checkpoint"):
        fit(Regression(), run(tmp_path, steps=4), OPTIM.model_copy(update={"muon": 0.0}))


@pytest.mark.parametrize("harm", ["cut", "gone", "progress"])
def test_one_that_is_damaged_is_named_and_the_one_before_still_there(tmp_path: Path, harm: str) -> None:
    fit(Regression(), run(tmp_path, steps=2), OPTIM)
    fit(Regression(), run(tmp_path, steps=4), OPTIM)
    last = tmp_path / "checkpoints" / "step-000000004"
    file = next(last.glob("*.distcp"))
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif harm == "gone":
        file.unlink()
    else:
        (last / "progress.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        fit(Regression(), run(tmp_path, steps=6), OPTIM)
    assert str(last) in str(caught.value) and "\n" not in str(caught.value)
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    resumed = Regression()
    fit(resumed, run(tmp_path, steps=6), OPTIM)
    assert min(resumed.losses) == 2


FULL = """
import resource, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_loop import OPTIM, Regression, fit, run
from torch import nn
from yozora.errors import ConfigError

class Large(Regression):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 2000), nn.ReLU(), nn.Linear(2000, 4))

fit(Large(), run(Path({out!r}), steps=2), OPTIM)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    fit(Large(), run(Path({out!r}), steps=4), OPTIM)
except ConfigError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_costs_no_checkpoint(tmp_path: Path) -> None:
    code = FULL.format(tests=[str(each) for each in Path(__file__).parents[:2]], out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    problem = said[-1].removeprefix(f"cannot write a checkpoint to {tmp_path / 'checkpoints'} (")
    assert problem in ("File too large); is the disk full?", "not all of it could be written); is the disk full?"), said
    assert saved(tmp_path) == ["step-000000002"]


class Before(Regression):
    """Writes, at its end, the one file that earlier versions wrote."""

    def export(self, model: nn.Module, folder: Path) -> None:
        super().export(model, folder)
        self.exported = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_file_of_an_earlier_version_can_be_gone_on_from(tmp_path: Path) -> None:
    whole = Regression()
    fit(whole, run(tmp_path / "whole", steps=12), OPTIM)
    begun = Before()
    fit(begun, run(tmp_path / "begun", steps=8), OPTIM.model_copy(update={"decay": 0.0}))
    straight = Before()
    fit(straight, run(tmp_path / "straight", steps=12), OPTIM.model_copy(update={"decay": 0.0}))
    old = as_before(begun, tmp_path / "begun")
    for path in (tmp_path / "begun" / "checkpoints" / "step-000000008").iterdir():
        path.unlink()
    (tmp_path / "begun" / "checkpoints" / "step-000000008").rmdir()
    torch.save(old, tmp_path / "begun" / "checkpoint.pt")
    resumed = Before()
    fit(resumed, run(tmp_path / "begun", steps=12), OPTIM.model_copy(update={"decay": 0.0}))
    assert min(resumed.losses) == 8
    for step, loss in resumed.losses.items():
        assert loss == pytest.approx(straight.losses[step], abs=1e-6)
    for name, tensor in straight.exported.items():
        torch.testing.assert_close(resumed.exported[name], tensor)
    torch.save(old | {"model": {}}, tmp_path / "whole" / "checkpoint.pt")
    fit(Regression(), run(tmp_path / "whole", steps=12), OPTIM, resume=False)
    assert not (tmp_path / "whole" / "checkpoint.pt").exists()
    torch.save(old | {"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt does not fit this configuration"):
        fit(Regression(), run(tmp_path, steps=12), OPTIM)


def as_before(task: Before, out: Path) -> dict[str, Any]:
    """A run's last checkpoint in the form of before: optimisers with numbered parameters."""
    checkpoints = Checkpoints(out)
    names = [name for name, _ in task.model.named_parameters()]
    shapes = {name: parameter.shape for name, parameter in task.model.named_parameters()}
    state = {f"{part}.{name}": torch.zeros(shape) for part in ("model", "average") for name, shape in shapes.items()}
    # Muon has the matrices, in groups by their rates, and AdamW the rest; see Regression
    order = [["0.weight", "2.weight"], ["0.bias", "2.bias"]]
    kinds: list[dict[str, Any]] = [{"momentum_buffer": None}, {"step": (), "exp_avg": None, "exp_avg_sq": None}]
    for group, memory in zip(order, kinds, strict=True):
        for name in group:
            for kind, shape in memory.items():
                state[f"optimisers.{name}.{kind}"] = torch.zeros(shapes[name] if shape is None else shape)
    progress = checkpoints.load(state, order)
    assert progress is not None
    made: dict[str, Any] = {part: {name: state[f"{part}.{name}"] for name in names} for part in ("model", "average")}
    made["optimisers"] = [
        {"state": {n: {k: state[f"optimisers.{name}.{k}"] for k in memory} for n, name in enumerate(group)}}
        for group, memory in zip(order, kinds, strict=True)
    ]
    return made | {"step": progress["step"], "norms": progress["norms"]}


def test_progress_is_plain_json(tmp_path: Path) -> None:
    fit(Regression(), run(tmp_path, steps=3), OPTIM)
    progress = json.loads((tmp_path / "checkpoints" / "step-000000003" / "progress.json").read_text())
    assert progress["step"] == 3 and len(progress["norms"]) == 3


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".metadata", b"\xb2 no pickle"),
        (".metadata", b""),
        ("progress.json", b"{}"),
        ("progress.json", b'{"step": "x", "norms": []}'),
        ("progress.json", b"[]"),
    ],
)
def test_a_damaged_one_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    checkpoints, state = Checkpoints(tmp_path), {"model.a": torch.zeros(2)}
    checkpoints.begin(state, {"step": 1, "norms": []})
    checkpoints.finish()
    (tmp_path / "checkpoints" / "step-000000001" / file).write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"step-000000001 cannot be read \(.*; delete it to go on from the one before"
    ):
        Checkpoints(tmp_path).load(state, [])
