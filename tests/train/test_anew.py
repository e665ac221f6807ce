"""Runs that are begun anew (`--no-resume`): what was there is given up for what is better, and for nothing less; also
where torchrun starts them again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_loop import OPTIM, Regression, run
from torch import Tensor
from torchrun import losses

from yozora.errors import ConfigError
from yozora.train.checkpoint import Checkpoints
from yozora.train.loop import fit


def test_no_resume_starts_over(tmp_path: Path) -> None:
    fit(Regression(), run(tmp_path, steps=5, log_every=1), OPTIM)
    again = Regression()
    fit(again, run(tmp_path, steps=3, log_every=1), OPTIM, resume=False)
    assert min(again.losses) == 0
    assert sorted(losses(tmp_path)) == [1, 2, 3]  # and no curve of two runs


def test_what_is_there_is_not_given_up_before_all_is_known_to_be_well(tmp_path: Path) -> None:
    """A setting that only the first batch, or a log, finds wrong costs nothing."""
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    wrong, stopped = Regression(), Regression()
    wrong.batches = lambda start: _raising(ConfigError("packed: give more tokens"))
    with pytest.raises(ConfigError, match="give more tokens"):
        fit(wrong, run(tmp_path, steps=5), OPTIM, resume=False)
    stopped.batches = lambda start: _raising(RuntimeError("a worker was ended"), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, run(tmp_path, steps=5), OPTIM, resume=False)
    assert kept and sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    with pytest.raises(ConfigError, match="needs Weights & Biases"):
        fit(Regression(), run(tmp_path, steps=5, wandb="x"), OPTIM, resume=False)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept

    pressed = Regression()
    pressed.batches = lambda start: _pressing(Regression().batches(start))  # and the batch comes all the same
    with pytest.raises(KeyboardInterrupt):
        fit(pressed, run(tmp_path, steps=5), OPTIM, resume=False)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept and not pressed.losses


class Torchrun:
    """What the attempts of one torchrun have in common, as the loop asks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._count = monkeypatch, 0

    def again(self) -> None:
        self._patch.setattr("yozora.train.loop.launch", lambda: f"host /tmp/{self._count} 0")

    def anew(self) -> None:
        self._count += 1
        self.again()


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Torchrun:
    return Torchrun(monkeypatch)


def steps_of(out: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*"))


def test_an_error_before_the_first_step_of_a_run_that_torchrun_starts_again(tmp_path: Path, torchrun: Torchrun) -> None:
    """The second attempt is the run's own beginning, too; a failure leaves what was there to be had."""
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    torchrun.anew()
    for _ in range(2):
        wrong = Regression()
        wrong.batches = lambda start: _raising(OSError("the disk was away"))
        with pytest.raises(OSError, match="away"):
            fit(wrong, run(tmp_path, steps=8), OPTIM, resume=False)
        assert steps_of(tmp_path) == [5]
    fit(again := Regression(), run(tmp_path, steps=8), OPTIM, resume=False)
    assert min(again.losses) == 0


def test_an_attempt_that_died_before_it_began_is_no_reason_to_go_on_from_the_run_before(
    tmp_path: Path, torchrun: Torchrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    torchrun.anew()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # of which the first has left nothing
    fit(task := Regression(), run(tmp_path, steps=5), OPTIM, resume=False)
    assert min(task.losses) == 0


def test_a_run_begun_anew_goes_on_from_its_own_checkpoint_whatever_torchrun_counts(
    tmp_path: Path, torchrun: Torchrun
) -> None:
    """On several machines each torchrun counts for itself: the first process's may count none."""
    fit(Regression(), run(tmp_path, steps=9), OPTIM)
    torchrun.anew()
    with pytest.raises(OSError, match="a machine is gone"):
        fit(Failing(6), run(tmp_path, steps=8, checkpoint_seconds=1), OPTIM, resume=False)
    (*_, begun) = steps_of(tmp_path)
    assert 0 < begun <= 6
    torchrun.again()
    fit(second := Regression(), run(tmp_path, steps=8), OPTIM, resume=False)
    assert min(second.losses) == begun
    torchrun.anew()
    fit(third := Regression(), run(tmp_path, steps=8), OPTIM, resume=False)
    assert min(third.losses) == 0


class Failing(Regression):
    """Fails at a step, or is refused by the guard until it."""

    def __init__(self, at: int, finite: bool = True) -> None:
        super().__init__()
        self.at, self.finite = at, finite

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if self.step == self.at:
            raise OSError("a machine is gone")
        time.sleep(0.55)  # so that there is time for a checkpoint
        loss, figures = super().loss(batch, generator)
        return loss if self.finite else loss * torch.nan, figures


@pytest.mark.parametrize("finite", [True, False])
def test_what_was_there_is_only_given_up_for_a_whole_checkpoint_of_something_learned(
    tmp_path: Path, finite: bool
) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    seconds = 60 if finite else 1
    with pytest.raises(OSError, match="a machine is gone"):
        fit(Failing(3, finite), run(tmp_path, steps=8, checkpoint_seconds=seconds), OPTIM, resume=False)
    assert steps_of(tmp_path) == [5] and not (tmp_path / "checkpoints.before").exists()
    fit(task := Regression(), run(tmp_path, steps=8), OPTIM)
    assert min(task.losses) == 5


def test_a_restarted_run_that_is_stopped_before_it_has_learned_exports_nothing(
    tmp_path: Path, torchrun: Torchrun, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = fit(Regression(), run(tmp_path, steps=5, log_every=1), OPTIM) / "weights.pt"
    before = trained.read_bytes()
    torchrun.anew()
    Checkpoints(tmp_path).set_aside()  # as an attempt that was killed while it made its first batch has left it
    pressed = Regression()
    pressed.batches = lambda start: _pressing(Regression().batches(start))
    with pytest.raises(KeyboardInterrupt):
        fit(pressed, run(tmp_path, steps=5), OPTIM, resume=False)
    assert "what was there is as it was" in capsys.readouterr().out
    assert trained.read_bytes() == before and steps_of(tmp_path) == [5]
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5]  # the curve is as it was, too


def test_what_was_given_up_is_gone_though_the_run_was_killed_just_before_it_went(
    tmp_path: Path, torchrun: Torchrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    torchrun.anew()
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoints, "drop", lambda self: None)
        fit(Regression(), run(tmp_path, steps=8), OPTIM, resume=False)
    assert (tmp_path / "checkpoints.before").exists()
    fit(Regression(), run(tmp_path, steps=8), OPTIM, resume=False)
    assert steps_of(tmp_path) == [8] and not (tmp_path / "checkpoints.before").exists()


def test_what_was_set_aside_stays_until_what_came_after_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoints, "drop", lambda self: None)
        fit(Regression(), run(tmp_path, steps=3), OPTIM, resume=False)
    damaged = tmp_path / "checkpoints" / "step-000000003"
    (damaged / ".metadata").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cannot be read .*; delete it to go on from the one before"):
        fit(Regression(), run(tmp_path, steps=8), OPTIM)
    shutil.rmtree(damaged)
    fit(task := Regression(), run(tmp_path, steps=8), OPTIM)
    assert min(task.losses) == 5 and not (tmp_path / "checkpoints.before").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_is_stopped_says_what_goes_on_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: bool
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(stop_at=3), run(tmp_path), OPTIM, resume=resume)
    command = "the same command" if resume else "the same command without --no-resume"
    assert f"stopped at step 3; {command} goes on from here" in capsys.readouterr().out


def test_what_cannot_be_put_back_is_kept_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_aside()
    checkpoints.set_aside()  # as by a second run that was killed as early as the first
    (tmp_path / "checkpoints").write_text("in the way")
    wrong = Regression()
    wrong.batches = lambda start: _raising(ConfigError("packed: give more tokens"))
    with pytest.raises(ConfigError, match="give more tokens"):
        fit(wrong, run(tmp_path, steps=8), OPTIM, resume=False)
    assert "cannot be put back" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="cannot be put back"):
        fit(Regression(), run(tmp_path, steps=8), OPTIM)
    assert [path.name for path in (tmp_path / "checkpoints.before").glob("*/step-*")] == ["step-000000005"]
    (tmp_path / "checkpoints").unlink()
    fit(task := Regression(), run(tmp_path, steps=8), OPTIM)
    assert min(task.losses) == 5 and not (tmp_path / "checkpoints.before").exists()


def _pressing(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Ctrl-C while the first batch is prepared."""
    os.kill(os.getpid(), signal.SIGINT)
    yield from batches


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_begun_anew_that_is_killed_before_its_first_step(
    tmp_path: Path, torchrun: Torchrun, resume: bool
) -> None:
    """Started again by torchrun it begins anew; by hand, to go on, what was there is."""
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    Checkpoints(tmp_path).set_aside()  # as it is while the first batch is prepared
    torchrun.anew()
    task = Regression()
    fit(task, run(tmp_path, steps=8), OPTIM, resume=resume)
    assert min(task.losses) == (5 if resume else 0)
    assert not (tmp_path / "checkpoints.before").exists()


def _raising(error: Exception, number: int = 0) -> Iterator[Tensor]:
    """Batches that come to nothing, after a signal."""
    if number:
        os.kill(os.getpid(), number)
    raise error
    yield
