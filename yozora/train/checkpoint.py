"""Checkpoints of a run, by torch.distributed.checkpoint: written in the background, by every process what it holds, and
read again by any number of processes.

`checkpoints/step-000000120` is a whole one. It is written under the same name with `.partial`, and renamed when every
process has written its part and the disk has it; so a kill at any moment leaves the one before. Tensors are stored by
name, `model.NAME`, `average.NAME` and `optimisers.NAME.KIND`. What else a run knows is in `progress.json`: the step,
from which data and random numbers follow, the last gradient norms, who started it (see `Checkpoints.is_of`), and what
it was made with (see `yozora.train.resumed`). The index that torch writes beside the tensors is a pickle: go on only
from checkpoints of your own. Runs of before have one file, `checkpoint.pt`, which one process can still go on from.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from yozora.errors import ConfigError
from yozora.train.mesh import ALONE, Mesh
from yozora.train.resumed import Said, misfit

KEPT = 2  # whole checkpoints; while the next is written, there are so many
PARTIAL, PROGRESS, BEFORE = ".partial", "progress.json", "checkpoint.pt"
REFUSAL = "use --no-resume or another run.out"

State = dict[str, Tensor]
FAILURES = (CheckpointException, OSError, RuntimeError, ValueError, KeyError, EOFError)


class Checkpoints:
    """Those of the run in `out`. All processes call every method, in the same order."""

    def __init__(self, out: Path, mesh: Mesh = ALONE) -> None:
        self.folder, self.before, self.mesh = out / "checkpoints", out / BEFORE, mesh
        self.aside = out / "checkpoints.before"
        self._writing: Future[None] | None = None
        if mesh.first:
            for path in self.folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(path, ignore_errors=True)  # of a run that was killed while it wrote

    @property
    def last(self) -> Path | None:
        """The last whole one."""
        return max((path for path in self.folder.glob("step-*") if path.suffix != PARTIAL), default=None)

    def is_of(self, launch: list[str]) -> bool:
        """Whether the last whole one was written since what names itself `launch` (see `yozora.train.mesh.launch`) was
        started: one name in common is enough, since machines may be exchanged."""
        found = False
        if self.mesh.first and launch and self.last:
            with suppress(OSError, ValueError, TypeError, AttributeError):
                said = json.loads((self.last / PROGRESS).read_text(encoding="utf-8"))
                found = not set(launch).isdisjoint(said.get("launch", []))
        return bool(self.mesh.from_first(found))

    def set_aside(self) -> None:
        """None are there any more, until they are put back, or the first new one is whole. Raises ConfigError."""
        problem = ""
        if self.mesh.first:
            there = [path for path, whole in ((self.folder, self.last), (self.before, self.before.exists())) if whole]
            try:
                if self.last:
                    self.drop()  # else what is aside is the last that there is
                for path in there:
                    self.aside.mkdir(exist_ok=True)
                    path.rename(self.aside / path.name)
            except OSError as error:
                problem = f"{self.folder} cannot be set aside ({error.strerror})"
        if problem := self.mesh.from_first(problem):  # and nobody looks before they are gone
            raise ConfigError(problem)

    def put_back(self) -> None:
        """What was set aside is there again, unless there are newer ones. Raises ConfigError."""
        if problem := self.mesh.from_first(self.restore()):
            raise ConfigError(problem)

    def restore(self) -> str:
        """As `put_back`, of a run that has failed: asks no other process, which may be dead. Returns what went wrong,
        or ""; what could not be put back stays where it is."""
        if self.mesh.size == 1:
            with suppress(ConfigError):
                self.finish()
        if self.mesh.first and self.aside.exists() and not self.last:
            try:
                shutil.rmtree(self.folder, ignore_errors=True)
                for path in self.aside.iterdir():
                    path.rename(self.folder.parent / path.name)
                self.aside.rmdir()
            except OSError as error:
                return f"{self.aside} cannot be put back ({error.strerror}): rename what is in it by hand"
        return ""

    def drop(self) -> None:
        """Deletes what was set aside: what came after it is whole, and can be read."""
        if self.mesh.first:
            shutil.rmtree(self.aside, ignore_errors=True)

    def begin(self, state: State, progress: dict[str, Any]) -> None:
        """Copies the tensors, and writes them while the run goes on; `progress` is JSON, with the number of the `step`.
        Raises ConfigError where this one, or the one before, cannot be written."""
        self.finish()
        whole = self.folder / f"step-{progress['step']:09d}"
        if self.mesh.gather(whole.exists())[0]:
            return
        partial = whole.with_suffix(PARTIAL)
        if problem := self.mesh.gather(self._prepare(partial, progress))[0]:
            raise self._unwritten(problem)
        _hush()
        try:
            writing = async_save(
                cast(dict[str, Any], state),
                storage_writer=FileSystemWriter(partial),
                process_group=self.mesh.disk,
                no_dist=self.mesh.size == 1,
            )
        except FAILURES as error:
            raise self._unwritten(_reason(error)) from None
        assert isinstance(writing, Future)
        self._writing = Future()
        writing.add_done_callback(_named(whole, self._writing, self.mesh.first))

    def finish(self) -> None:
        """Waits for the one that is being written. Raises ConfigError where that went wrong."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            problem = writing.result()
        except (*FAILURES, Exception) as error:  # of a thread of torch's, with what comes of a warning, too
            problem = _reason(error)
        if problem := next(filter(None, self.mesh.gather(problem)), None):
            raise self._unwritten(problem)
        self.drop()

    def load(self, state: State, order: list[list[str]], sizes: Said | None = None) -> dict[str, Any] | None:
        """Reads the last whole one into the tensors of `state` and returns its progress; None where there is none.
        `order`: the names of each optimiser's parameters, for a file of before. Raises ConfigError where the tensors,
        or the networks' `sizes`, are others than it holds, or it cannot be read."""
        path, before = self.mesh.gather((self.last, self.before.exists()))[0]  # all read what the first one sees
        if path is None:
            return self._load_before(state, order) if before else None
        try:
            reader = FileSystemReader(path)
            progress = _progress(json.loads((path / PROGRESS).read_text(encoding="utf-8")))
            problem = misfit(progress.get("sizes", {}), sizes or {}) or _difference(reader, state)
            if not problem:
                _hush()
                load(
                    cast(dict[str, Any], state),
                    storage_reader=reader,
                    process_group=self.mesh.disk,
                    no_dist=self.mesh.size == 1,
                )
        except (*FAILURES, Exception) as error:  # a damaged index, which is a pickle, raises all sorts
            raise ConfigError(
                f"{path} cannot be read ({_reason(error)}); delete it to go on from the one before, or {REFUSAL}"
            ) from None
        if problem:
            raise ConfigError(f"{path} does not fit this configuration ({problem}); {REFUSAL}")
        return progress

    def _load_before(self, state: State, order: list[list[str]]) -> dict[str, Any]:
        """See `load`, for the one file of before."""
        if self.mesh.size > 1:
            raise ConfigError(
                f"{self.before} is of an earlier version, which knew one process only: go on without torchrun once, "
                f"which writes the new form, or {REFUSAL}"
            )
        try:
            old = torch.load(self.before, map_location="cpu", weights_only=True)
            found = {f"{part}.{name}": each for part in ("model", "average") for name, each in old[part].items()}
            for names, optimiser in zip(order, old["optimisers"], strict=True):
                for number, memory in optimiser["state"].items():
                    found |= {f"optimisers.{names[number]}.{kind}": each for kind, each in memory.items()}
            for name, tensor in state.items():
                tensor.copy_(found[name].reshape(tensor.shape) if tensor.ndim == 0 else found[name])
        except Exception as error:  # a file of before may hold anything
            raise ConfigError(f"{self.before} does not fit this configuration ({_reason(error)}); {REFUSAL}") from None
        return _progress({"step": old["step"], "norms": old.get("norms", [])})

    def _prepare(self, partial: Path, progress: dict[str, Any]) -> str | None:
        """The first process makes the folder. Returns what went wrong."""
        try:
            if self.mesh.first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                (partial / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            return _reason(error)
        return None

    def _unwritten(self, problem: str) -> ConfigError:
        if "inline_container" in problem or "PytorchStreamWriter" in problem:  # torch's words for a write that failed
            problem = "not all of it could be written"
        return ConfigError(f"cannot write a checkpoint to {self.folder} ({problem}); is the disk full?")


def _named(whole: Path, settled: Future[None], first: bool) -> Callable[[Future[Any]], None]:
    """What is done once all processes have written their parts: the first one gives the checkpoint its name and deletes
    old ones; where that went wrong, `settled` has the error."""

    def complete(written: Future[Any]) -> None:
        partial = whole.with_suffix(PARTIAL)
        try:
            written.result()
            if first:
                os.replace(partial, whole)
                for old in sorted(path for path in whole.parent.glob("step-*") if path.suffix != PARTIAL)[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
            settled.set_result(None)
        except BaseException as error:  # whatever it is: who waits for `settled` waits for ever otherwise
            if first:
                shutil.rmtree(partial, ignore_errors=True)
            settled.set_exception(error)

    return complete


def _progress(said: Any) -> dict[str, Any]:
    """What a run needs to know of a checkpoint, of which earlier versions said less. Raises ValueError and its like
    where that is not there."""
    made_with = {name: dict(said[name]) for name in ("settings", "sizes") if said.get(name)}
    return {"step": int(said["step"]), "norms": [float(norm) for norm in said["norms"]]} | made_with


def _difference(reader: FileSystemReader, state: State) -> str:
    """The first tensor that is not the same there and here, in words; "" where there is none."""
    there = reader.read_metadata().state_dict_metadata
    for name in sorted(there.keys() ^ state.keys()):
        return f"{name} is {'only in the checkpoint' if name in there else 'not in the checkpoint'}"
    for name, tensor in state.items():
        stored = there[name]
        if not isinstance(stored, TensorStorageMetadata) or stored.size != tensor.shape:
            size = list(getattr(stored, "size", ()))
            return f"{name} is {size} in the checkpoint and {list(tensor.shape)} here"
    return ""


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: of several processes' failures, the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _hush() -> None:
    """One process alone is no mistake, of which torch would warn each time."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
