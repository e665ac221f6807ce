"""The training loop, the same for every stage: steps, checkpoints, exact resume, moving average, logs.

Everything random in a step is drawn from (seed, step), so a run that was killed and resumed is the run that was not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
from yozora.train.config import Optim, Run
from yozora.train.log import Log
from yozora.train.optim import Average, Guard, Optimisers, rate_scale


class Task(Protocol):
    """What a stage gives the loop."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    def is_hidden(self, name: str, parameter: Tensor) -> bool:
        """Whether Muon should train this parameter."""
        ...

    def rate(self, name: str) -> float:
        """Factor on the learning rate of this parameter."""
        ...

    def batches(self, start: int) -> Iterator[Any]:
        """The batches of steps `start`, `start` + 1, ...; the same for the same step, always."""
        ...

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss and figures to log; `generator` (CPU) is seeded for this step."""
        ...

    def size(self, batch: Any) -> int:
        """Samples in a batch."""
        ...

    def sample(self, model: nn.Module, step: int, folder: Path) -> None:
        """Writes something to look at, made with the averaged weights."""
        ...

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the averaged weights in the form that the next stage, or a user, loads."""
        ...


def fit(task: Task, run: Run, optim: Optim, resume: bool = True) -> Path:
    """Trains to `run.steps` and returns the folder of exported weights.

    With `resume`, goes on from the last checkpoint in `run.out`, if there is one. SIGINT and SIGTERM end the run after
    a checkpoint. Raises ConfigError when the checkpoint does not fit the model, KeyboardInterrupt when interrupted.
    """
    device = pick_device(run.device)
    task.model.to(device)
    optimisers = Optimisers(task.model, optim, task.is_hidden, task.rate)
    average, guard = Average(task.model, optim.ema), Guard(optim.spike)
    make_folder(run.out)
    if not resume:  # or else a run that is stopped before its first checkpoint would go on from another's last
        (run.out / "checkpoint.pt").unlink(missing_ok=True)
    step = _load(run.out, task.model, average, optimisers, guard) if resume else 0
    log = Log(run, device)
    saved = time.monotonic()
    with _stop_flag() as stopped:
        batches = task.batches(step)
        while step < run.steps and not stopped:
            waited = time.monotonic()
            try:
                batch = next(batches)
            except RuntimeError:
                if not stopped:
                    raise
                break  # the signal that stops the run has ended its data workers, too
            waited = time.monotonic() - waited
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
            task.model.train()
            with autocast(device, run.precision):
                loss, figures = task.loss(batch, generator)
            loss.backward()
            scale = rate_scale(step, run.steps, optim)
            norm = optimisers.step(scale, guard.limit)
            skipped = guard.judge(norm)
            figures |= {"loss": loss.item(), "gradient_norm": norm, "rate": scale, "wait": waited}
            if skipped:
                print(f"step {step + 1}: {skipped}; this step changed nothing", flush=True)
            else:
                average.update(task.model, step)
            step += 1
            log.step(step, task.size(batch), figures)
            if time.monotonic() - saved > run.checkpoint_seconds:
                _save(run.out, step, task.model, average, optimisers, guard)
                saved = time.monotonic()
            if run.sample_every and step % run.sample_every == 0:
                with autocast(device, run.precision):
                    task.sample(average.model, step, run.out / "samples")
        _save(run.out, step, task.model, average, optimisers, guard)
        log.close()
        if stopped and step < run.steps:
            task.export(average.model, run.out / "export")  # what there is so far can be used, too
            print(f"stopped at step {step}; the same command goes on from here", flush=True)
            raise KeyboardInterrupt
    export = run.out / "export"
    task.export(average.model, export)
    return export


def make_folder(path: Path) -> None:
    """Makes the folder of a run; ConfigError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.out: cannot make the folder {path} ({error.strerror}); choose another") from None


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast for `bf16`, a no-op for `fp32`; `auto` is bf16 where the device is quick at it."""
    quick = quick_dtype(device) == torch.bfloat16 if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=quick)


def _save(out: Path, step: int, model: nn.Module, average: Average, optimisers: Optimisers, guard: Guard) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.model.state_dict(),
        "optimisers": optimisers.state_dict(),
        "norms": list(guard.norms),
    }
    temporary = out / "checkpoint.tmp"
    try:
        torch.save(state, temporary)
        os.replace(temporary, out / "checkpoint.pt")  # atomic: a kill leaves the old checkpoint or the new one
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write a checkpoint to {out} ({str(error).splitlines()[0]}); is the disk full?"
        ) from None


def _load(out: Path, model: nn.Module, average: Average, optimisers: Optimisers, guard: Guard) -> int:
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimisers.load_state_dict(state["optimisers"])
        guard.norms.extend(state.get("norms", ()))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path} does not fit this configuration ({reason}); use --no-resume or another run.out"
        ) from None
    print(f"resumed from step {state['step']}", flush=True)
    return int(state["step"])


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives.

    A signal to the whole group of processes ends the data workers, too, of which torch complains with a RuntimeError at
    any point of the main program: then the run ends there, with its last checkpoint."""
    stopped: list[int] = []
    before = {s: signal.signal(s, lambda number, _: stopped.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    except RuntimeError as error:
        if not stopped or "DataLoader worker" not in str(error):
            raise
        print("stopped; the same command goes on from the last checkpoint", flush=True)
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
