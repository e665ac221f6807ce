"""The training loop, the same for every stage: steps, checkpoints, exact resume, moving average, logs.

Everything random in a step is drawn from (seed, step), so a run that was killed and resumed is the run that was not.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
from yozora.train.checkpoint import Checkpoints, State
from yozora.train.claim import claimed
from yozora.train.config import Optim, Run
from yozora.train.log import SAMPLES, Log, joined
from yozora.train.mesh import ALONE, Mesh, launch, refuse_several
from yozora.train.optim import Average, Guard, Optimisers, rate_scale
from yozora.train.parallel import whole
from yozora.train.resumed import Said, changed, sizes_of

SMALLER = (
    "give smaller batches (batch, packed), smaller or shorter clips, or set checkpointing to full (of a stage, "
    "parallel.checkpointing)"
)


HOPELESS = 100  # steps in a row that are not finite, after which a run ends


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


@runtime_checkable
class SharedTask(Task, Protocol):
    """A task that several processes share, and whose steps may be learned from in several parts."""

    def shard(self, average: nn.Module) -> None:
        """Divides what is trained, and its average, over the processes."""
        ...

    def parts(self, batch: Any, generator: torch.Generator) -> Sequence[Any]:
        """What `loss` is given, one part after the other; the losses of all parts of all processes add up to the
        step's."""
        ...


def fit(
    task: Task, run: Run, optim: Optim, resume: bool = True, mesh: Mesh = ALONE, settings: Said | None = None
) -> Path:
    """Trains to `run.steps` and returns the folder of exported weights; all processes of the mesh call it together.

    With `resume`, goes on from the last checkpoint in `run.out`, if there is one; which of the stage's `settings` (see
    `settings_of`) were others then is said. SIGINT and SIGTERM end the run after
    a checkpoint. Raises ConfigError when the checkpoint does not fit the model or another run is at work in `run.out`,
    KeyboardInterrupt when interrupted.
    """
    if mesh.size == 1:
        refuse_several("this")
    make_folder(run.out)
    with claimed(run.out, mesh):
        _agree(task, run, mesh, settings, resume)
        return _fit(_Training(task, run, optim, mesh, settings), resume)


def _agree(task: Task, run: Run, mesh: Mesh, settings: Said | None, resume: bool) -> None:
    """Raises ConfigError where processes were given different settings: each would do another part of another step, or
    wait for the others for ever."""
    own = {**(settings or {}), "sizes": sizes_of(task.model), "resume": resume}
    together = {name: str(getattr(run, name)) for name in ("out", "steps", "log_every", "sample_every")}
    own["run"] = {**own.get("run", {}), **together}
    first, *others = mesh.gather(own)
    if names := sorted({name for other in others for name in changed(first, other)}):
        raise ConfigError(f"the processes were given different settings ({', '.join(names)}): give all the same")


def _fit(state: _Training, resume: bool) -> Path:
    """See `fit`. What a run that is begun anew gives up is only gone once there is a whole checkpoint in its place."""
    checkpoints = state.checkpoints
    if resume:
        checkpoints.put_back()  # of a run that was begun anew and ended before that
    elif not checkpoints.is_of(state.launch):  # else it is the beginning of this very run, which was started again
        checkpoints.set_aside()
    try:
        _learn(state, "the same command" if resume else "the same command without --no-resume")
    except BaseException:
        if problem := checkpoints.restore():
            print(problem, flush=True)
        raise
    return state.export()


def _learn(state: _Training, again: str) -> None:
    """The steps of `fit`; `again` is what goes on from where they end. Raises as that does."""
    task, run, mesh, checkpoints = state.task, state.run, state.mesh, state.checkpoints
    step = state.resume()
    learned = step > 0
    if learned:
        checkpoints.drop()
    log = Log(run, state.device, mesh, step)
    if step >= run.steps:
        log.say(f"step {step} of {run.steps} was reached before: give more steps, or --no-resume to begin anew")
    with _stop_flag(again) as stopped, _ended(task.batches(step)) as batches:
        stop, saved = False, time.monotonic()
        while step < run.steps and not stop:
            waited = time.monotonic()
            try:
                batch = next(batches)
            except (RuntimeError, OSError, EOFError):
                if not stopped or mesh.size > 1:
                    raise
                stop = True
                break  # the signal that stops the run has ended its data workers, too
            if not learned and mesh.any(bool(stopped), False)[0]:
                stop = True
                break  # the first batch may take long
            waited = time.monotonic() - waited
            figures = state.learn(step, batch)
            step += 1
            learned = learned or bool(state.guard.norms)
            log.step(step, task.size(batch), figures | {"wait": waited})
            state.despair(step == run.steps)
            stop, due = mesh.any(bool(stopped), time.monotonic() - saved > run.checkpoint_seconds)
            if due and learned:
                state.save(step)
                saved = time.monotonic()
            if run.sample_every and step % run.sample_every == 0:
                state.sample(step)
                log.show(step)
        if learned:
            state.save(step)
            checkpoints.finish()
        log.close()
        if stop and step < run.steps:
            if learned:
                state.export()  # what there is so far can be used, too
                log.say(f"stopped at step {step}; {again} goes on from here")
            else:
                log.say("stopped before anything was learned; what was there is as it was")
            raise KeyboardInterrupt


@contextmanager
def _ended(batches: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """The batches, whose workers end with the block, also where an error keeps hold of them for longer."""
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


class _Training:
    """A run as it stands: the task, what trains it, its average and its checkpoints."""

    def __init__(self, task: Task, run: Run, optim: Optim, mesh: Mesh, settings: Said | None) -> None:
        self.task, self.run, self.optim, self.mesh = task, run, optim, mesh
        self.said = {"settings": settings, "sizes": sizes_of(task.model)}
        self.device = pick_device(run.device)
        task.model.to(self.device)
        self.average, self.guard = Average(task.model, optim.ema), Guard(optim.spike)
        if mesh.size > 1:
            assert isinstance(task, SharedTask)
            task.shard(self.average.model)
        half = runs_in_half(self.device, run.precision)
        self.optimisers = Optimisers(task.model, optim, task.is_hidden, task.rate, half)
        self.checkpoints = Checkpoints(run.out, mesh)
        self.launch = sorted(set(filter(None, mesh.gather(launch()))))
        self.lost = 0  # steps in a row that were not finite

    def learn(self, step: int, batch: Any) -> dict[str, float]:
        """One step; returns its figures."""
        task = self.task
        generator = torch.Generator().manual_seed(self.run.seed * 1_000_003 + step)
        task.model.train()
        said = []
        scale = rate_scale(step, self.run.steps, self.optim)
        with memory_errors(f"step {step + 1}", SMALLER):
            for part in task.parts(batch, generator) if isinstance(task, SharedTask) else [batch]:
                with autocast(self.device, self.run.precision):
                    loss, figures = task.loss(part, generator)
                (loss * self.mesh.size).backward()  # sharding takes the mean of the processes' gradients
                said.append(figures | {"loss": loss.item()})
            norm = self.optimisers.step(scale, self.guard.limit)
        self.lost = 0 if math.isfinite(norm) else self.lost + 1
        if skipped := self.guard.judge(norm):
            if self.mesh.first:
                print(f"step {step + 1}: {skipped}; this step changed nothing", flush=True)
        else:
            self.average.update(task.model, step)
        return joined(said) | {"gradient_norm": norm, "rate": scale}

    def despair(self, done: bool) -> None:
        """Raises ConfigError where nothing has been learned for HOPELESS steps, or, of a run that is `done`, at all."""
        if self.lost >= HOPELESS or (done and not self.guard.norms):
            raise ConfigError(
                f"{self.lost} steps in a row gave numbers that are not finite, from which nothing is learned: lower "
                "the rate (optim.adamw), or check the model's weights and the clips"
            )

    def sample(self, step: int) -> None:
        """The first process draws something to look at; the others wait."""
        if model := whole(self.average.model, self.mesh, self.device):
            with autocast(self.device, self.run.precision):
                self.task.sample(model, step, self.run.out / SAMPLES)

    def export(self) -> Path:
        """The first process writes the averaged weights; returns where."""
        folder = self.run.out / "export"
        if model := whole(self.average.model, self.mesh, torch.device("cpu") if self.mesh.size > 1 else self.device):
            self.task.export(model, folder)
        return folder

    def save(self, step: int) -> None:
        """Begins to write a checkpoint."""
        progress = {"step": step, "norms": list(self.guard.norms), "launch": self.launch}
        self.checkpoints.begin(self._tensors(), progress | self.said)

    def resume(self) -> int:
        """Goes on from the last checkpoint, if there is one. Returns the step."""
        progress = self.checkpoints.load(self._tensors(), self.optimisers.order, self.said["sizes"])
        if progress is None:
            return 0
        self.guard.norms.extend(progress["norms"])
        if self.mesh.first:
            print(f"resumed from step {progress['step']}", flush=True)
            self._compare(progress.get("settings"))
        return int(progress["step"])

    def _compare(self, before: Said | None) -> None:
        """Says what a checkpoint has learned by other settings."""
        now = self.said["settings"]
        if before and now and (names := changed(before, now)):
            print(f"what was learned by other settings ({', '.join(names)}) stays; --no-resume begins anew", flush=True)

    def _tensors(self) -> State:
        """All that a run must keep, by name; the tensors are those that train, not copies."""
        named = {"model": self.task.model.state_dict(), "average": self.average.model.state_dict()}
        named["optimisers"] = self.optimisers.state()
        return {f"{part}.{name}": tensor for part, tensors in named.items() for name, tensor in tensors.items()}


@contextmanager
def memory_errors(what: str, advice: str) -> Iterator[None]:
    """In the block, memory that is not there is a ConfigError with `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch has an exception for GPUs only; on a CPU its allocator raises a bare RuntimeError
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in str(error):
            raise
        raise ConfigError(f"not enough memory for {what}: {advice}") from None


def make_folder(path: Path, named_by: str = "run.out") -> None:
    """Makes the folder of a run; ConfigError, which names what it was `named_by`, where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{named_by}: cannot make the folder {path} ({error.strerror}); choose another") from None


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


def runs_in_half(device: torch.device, precision: str) -> bool:
    """Whether matrices are multiplied in bfloat16: for `bf16`, or for `auto` where the device is quick at it."""
    return quick_dtype(device) == torch.bfloat16 if precision == "auto" else precision == "bf16"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast where it `runs_in_half`, else a no-op."""
    return torch.autocast(device.type, torch.bfloat16, enabled=runs_in_half(device, precision))


@contextmanager
def _stop_flag(again: str) -> Iterator[list[int]]:
    """A list that is empty until SIGINT or SIGTERM arrives; `again` is what goes on from there.

    A signal to the whole group of processes ends the data workers, too, of which torch complains with a RuntimeError at
    any point of the main program: then the run ends there, with its last checkpoint."""
    stopped: list[int] = []
    heard = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        heard = ()  # as Ray runs it: signals are not for such a thread
    before = {s: signal.signal(s, lambda number, _: stopped.append(number)) for s in heard}
    try:
        yield stopped
    except RuntimeError as error:
        if not stopped or "DataLoader worker" not in str(error):
            raise
        print(f"stopped; {again} goes on from the last checkpoint", flush=True)
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
