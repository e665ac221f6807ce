"""The training loop: exact resume, interruption, checkpoints and settings."""

from __future__ import annotations

import copy
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchrun import losses

from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
from yozora.train.checkpoint import Checkpoints
from yozora.train.config import AutoencoderStage, Optim, Run
from yozora.train.data import stream
from yozora.train.loop import autocast, fit
from yozora.train.optim import Average, Optimisers, OurMuon, orthogonalise, rate_scale
from yozora.train.settings import read_config

OPTIM = Optim(adamw=1e-2, muon=0.02, warmup=3, decay=0.3)


class Regression:
    """A task small enough to run whole in a test: a network learns a fixed linear map."""

    def __init__(self, stop_at: int | None = None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.losses: dict[int, float] = {}
        self.step = 0
        self.stop_at = stop_at

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        return parameter.ndim == 2

    def rate(self, name: str) -> float:
        return 0.5 if name.startswith("2.") else 1.0

    def batches(self, start: int) -> Iterator[Tensor]:
        self.step = start
        while True:
            yield torch.randn(16, 4, generator=torch.Generator().manual_seed(self.step))

    def size(self, batch: Tensor) -> int:
        return len(batch)

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        noise = 0.1 * torch.randn(batch.shape, generator=generator)
        loss = (self.model(batch + noise) - batch.flip(1)).square().mean()
        self.losses[self.step] = loss.item()
        self.step += 1
        if self.step == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        return loss, {}

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step}.txt").write_text("here")

    def export(self, model: nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), folder / "weights.pt")


def run(out: Path, steps: int = 20, **settings: object) -> Run:
    return Run.model_validate({"out": out, "steps": steps, "device": "cpu", "precision": "fp32", **settings})


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path) -> None:
    whole = Regression()
    export = fit(whole, run(tmp_path / "whole"), OPTIM)
    stopped = Regression(stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, run(tmp_path / "parts"), OPTIM)
    assert (tmp_path / "parts" / "export" / "weights.pt").exists()  # what there is so far can be used
    resumed = Regression()
    again = fit(resumed, run(tmp_path / "parts"), OPTIM)
    assert min(resumed.losses) == 8
    losses = stopped.losses | resumed.losses
    assert losses.keys() == whole.losses.keys()
    for step, loss in whole.losses.items():
        assert losses[step] == pytest.approx(loss, abs=1e-5)
    one, other = (torch.load(folder / "weights.pt") for folder in (export, again))
    for name in one:
        torch.testing.assert_close(one[name], other[name])


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {tests!r}
from test_loop import OPTIM, Regression, fit, run

class Killed(Regression):
    def loss(self, batch, generator):
        if self.step == 60:
            os.kill(os.getpid(), signal.SIGKILL)
        import time
        time.sleep(0.04)
        return super().loss(batch, generator)

fit(Killed(), run(Path({out!r}), steps=80, checkpoint_seconds=1), OPTIM)
"""


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = Regression()
    fit(whole, run(tmp_path / "whole", steps=80), OPTIM)
    out = tmp_path / "killed"
    code = KILLED.format(tests=[str(each) for each in Path(__file__).parents[:2]], out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = Regression()
    fit(resumed, run(out, steps=80), OPTIM)
    assert 0 < min(resumed.losses) <= 60
    for step, loss in resumed.losses.items():
        assert loss == pytest.approx(whole.losses[step], abs=1e-5)


@pytest.mark.parametrize("signalled", [True, False])
def test_data_workers_that_end_with_a_signalled_run_are_no_error(tmp_path: Path, signalled: bool) -> None:
    class Orphaned(Regression):
        def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            if self.step == 30:
                if signalled:
                    signal.raise_signal(signal.SIGTERM)
                raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")
            return super().loss(batch, generator)

    with pytest.raises(KeyboardInterrupt if signalled else RuntimeError):
        fit(Orphaned(), run(tmp_path, steps=80), OPTIM)


class Numbers:
    """What a data worker makes."""

    def batch(self, step: int) -> Tensor:
        return torch.full((16, 4), float(step))


def test_workers_end_with_a_run_that_fails(tmp_path: Path) -> None:
    class Failing(Regression):
        def batches(self, start: int) -> Iterator[Tensor]:
            self.step = start
            return stream(Numbers(), start, 100, workers=1)

        def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            raise ConfigError("the disk is full")

    with pytest.raises(ConfigError, match="the disk is full") as failure:
        fit(Failing(), run(tmp_path), OPTIM)
    assert failure.tb is not None  # which holds what the run held
    assert multiprocessing.active_children() == []


def test_a_pipe_that_breaks_with_a_signalled_worker_is_no_error(tmp_path: Path) -> None:
    class Reset(Regression):
        def batches(self, start: int) -> Iterator[Tensor]:
            yield from islice(super().batches(start), 5)
            signal.raise_signal(signal.SIGTERM)
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(KeyboardInterrupt):
        fit(Reset(), run(tmp_path), OPTIM)
    resumed = Regression()
    fit(resumed, run(tmp_path), OPTIM)
    assert min(resumed.losses) == 5  # nothing of what had been learned was lost


@pytest.mark.parametrize(("steps", "good", "tried"), [(4, 0, 4), (300, 3, 103)])
def test_a_run_that_learns_nothing_ends_and_says_so(tmp_path: Path, steps: int, good: int, tried: int) -> None:
    class Broken(Regression):
        def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            loss, figures = super().loss(batch, generator)
            return (loss if self.step <= good else loss * torch.nan), figures

    task = Broken()
    with pytest.raises(ConfigError, match=f"{tried - good} steps in a row gave numbers that are not finite"):
        fit(task, run(tmp_path, steps=steps), OPTIM)
    assert len(task.losses) == tried and not (tmp_path / "export").exists()


def test_a_run_that_is_done_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Regression(), run(tmp_path, steps=3), OPTIM)
    assert "was reached" not in capsys.readouterr().out
    fit(Regression(), run(tmp_path, steps=3), OPTIM)
    assert "step 3 of 3 was reached before: give more steps, or --no-resume" in capsys.readouterr().out


def test_a_run_in_a_thread_of_its_own_leaves_signals_alone(tmp_path: Path) -> None:
    task = Regression()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fit, task, run(tmp_path, steps=3), OPTIM).result()
    assert sorted(task.losses) == [0, 1, 2]


def test_it_learns_and_shows_samples(tmp_path: Path) -> None:
    task = Regression()
    fit(task, run(tmp_path, steps=300, sample_every=100), OPTIM)
    assert task.losses[299] < 0.3 * task.losses[0]
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"100.txt", "200.txt", "300.txt"}
    assert list((tmp_path / "tensorboard").iterdir())


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


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(Regression(), run(tmp_path, steps=5), OPTIM)
    other = Regression()
    other.model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 4))
    with pytest.raises(ConfigError, match="does not fit"):
        fit(other, run(tmp_path, steps=10), OPTIM)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    optimisers = Optimisers(model, OPTIM, lambda name, p: p.ndim == 2)
    model(torch.full((1, 2), float("nan"))).sum().backward()
    optimisers.step(1.0)
    assert torch.equal(model.weight, before)


def test_memory_that_is_not_there_is_told_with_what_helps(tmp_path: Path) -> None:
    class Hungry(Regression):
        def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            return super().loss(torch.cat((batch, torch.empty(1 << 45, 4))) if self.step == 3 else batch, generator)

    with pytest.raises(
        ConfigError, match=r"not enough memory for step 4: give smaller batches .*checkpointing to full"
    ):
        fit(Hungry(), run(tmp_path), OPTIM)


def test_muon_trains_channels_last_kernels_as_it_trains_contiguous_ones() -> None:
    def trained(memory_format: torch.memory_format) -> Tensor:
        torch.manual_seed(0)
        model = nn.Conv2d(3, 5, 3).to(memory_format=memory_format)  # pyright: ignore
        optimisers = Optimisers(model, OPTIM, lambda name, p: p.ndim == 4)
        for _ in range(3):
            model(torch.ones(1, 3, 6, 6)).square().sum().backward()
            optimisers.step(1.0)
        return model.weight.detach().contiguous()

    torch.testing.assert_close(trained(torch.channels_last), trained(torch.contiguous_format), atol=2e-4, rtol=1e-2)


def test_muon_in_float32_steps_as_torchs_in_bfloat16_and_takes_over_its_state() -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in ((24, 8), (8, 40), (16, 16))]
    twins = [nn.Parameter(weight.detach().clone()) for weight in weights]
    settings: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    theirs, ours = torch.optim.Muon(weights, **settings), OurMuon(twins, **settings)
    for step in range(6):
        for weight, twin in zip(weights, twins, strict=True):
            weight.grad = torch.randn(weight.shape)
            twin.grad = weight.grad.clone()
        before = [weight.detach().clone() for weight in weights]
        theirs.step()
        ours.step()
        for weight, twin, old in zip(weights, twins, before, strict=True):
            apart = (twin.detach() - weight.detach()).norm() / (weight.detach() - old).norm()
            assert apart < 0.1  # of a step; bfloat16 keeps two to three digits
            twin.data.copy_(weight.detach())
        if step == 2:
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))


def test_orthogonalised_matrices_keep_their_singular_vectors() -> None:
    for shape in ((6, 20), (20, 6), (8, 8)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ orthogonalise(matrix, (3.4445, -4.775, 2.0315), 1e-7, 5) @ v.T
        assert ((inner.diagonal() > 0.3) & (inner.diagonal() < 1.4)).all()
        assert float((inner - inner.diagonal().diag()).abs().max()) < 1e-3


@pytest.mark.parametrize(("precision", "enabled"), [("bf16", True), ("fp32", False), ("auto", None)])
def test_precision_is_as_asked_or_as_the_device_is_quick_at(precision: str, enabled: bool | None) -> None:
    cpu = torch.device("cpu")
    expected = quick_dtype(cpu) == torch.bfloat16 if enabled is None else enabled
    with autocast(cpu, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected else torch.float32)


def test_rate_warms_up_holds_and_decays() -> None:
    rates = [rate_scale(step, 100, Optim(adamw=1, warmup=10, decay=0.2)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[99] == pytest.approx(0.05)


def test_average_follows_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, decay=0.9)
    nn.init.ones_(model.weight)
    for step in range(200):
        average.update(model, step)
    assert float(average.model.weight) == pytest.approx(1, abs=1e-4)  # type: ignore[arg-type]


GOOD = """
[run]
out = "x"
steps = 1
[optim]
adamw = 1e-3
[world]
buckets = [{ width = 32, height = 32, frames = 5, batch = 1 }]
"""


def test_settings_are_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD)
    config = read_config(AutoencoderStage, path, ["run.steps=7", "run.device=cpu", "optim.adamw = 2e-3"])
    assert (config.run.steps, config.run.device, config.optim.adamw) == (7, "cpu", 2e-3)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (GOOD.replace("steps = 1", "steps = 0"), [], "run.steps"),
        (GOOD.replace("adamw", "adamx"), [], "optim.adamx; is adamw meant"),
        (GOOD + "colour = 1", [], "world.colour"),
        (GOOD, ["run.steps"], "section.key=value"),
        (GOOD, ["run.out.deep=1"], "not a section"),
        ("[run", [], "not valid TOML"),
    ],
)
def test_bad_settings(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(AutoencoderStage, path, overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(AutoencoderStage, tmp_path / "none.toml")


class Spiked(Regression):
    """Its gradient at step 40 is a thousand times what it should be, and at step 41 not a number."""

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        factor = {40: 1000.0, 41: float("nan")}.get(self.step, 1.0)
        self.before = {name: weight.clone() for name, weight in self.model.named_parameters()}
        loss, figures = super().loss(batch, generator)
        return loss * factor, figures


def test_a_spike_changes_nothing_and_is_told_across_a_resume_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stop in (None, 39):
        out = tmp_path / str(stop)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                fit(Spiked(stop_at=stop), run(out, steps=42), OPTIM)
        task = Spiked()
        task.stop_at = 41  # right after the first of the two
        with pytest.raises(KeyboardInterrupt):
            fit(task, run(out, steps=42), OPTIM)
        assert all(torch.equal(weight, task.before[name]) for name, weight in task.model.named_parameters())
        said = capsys.readouterr().out
        assert "step 41: the gradient is" in said and "times as large as lately; this step changed nothing" in said
        last = Spiked()
        fit(last, run(out, steps=42), OPTIM)
        assert "step 42: loss or gradient is not finite; this step changed nothing" in capsys.readouterr().out
        assert all(torch.equal(weight, last.before[name]) for name, weight in last.model.named_parameters())
