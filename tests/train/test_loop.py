"""The training loop: exact resume, interruption, checkpoints and settings."""

from __future__ import annotations

import copy
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
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
