"""A worker of several processes, each with a GPU of its own, that make every video together, as torchrun starts them.

The first is the worker: it alone knows of the queue. It tells the others what it samples, they sample the same, and
each computes its share of the tokens (`yozora.models.shared`). Before every event of a video all of them agree to go
on, so that a video that is cancelled ends in all of them within a step.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from yozora.create.canvas import Canvas
from yozora.create.events import Chunk, Progress
from yozora.create.memory import NotEnoughMemory
from yozora.errors import YozoraError
from yozora.train.mesh import Mesh

if TYPE_CHECKING:
    from yozora.serve.pool import Models

__all__ = ["Team", "follow"]

T = TypeVar("T")
IDLE = 60.0  # seconds after which who waits hears that there is nothing yet, or would take the first for dead
GRACE = 5.0  # seconds that a video which is given back may take to let go of the others
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sampled:
    """What is to be sampled, by all."""

    model: str
    canvases: tuple[Canvas, ...]
    seeds: tuple[int, ...]
    asked: dict[str, Any]


_NOTHING, _END = "nothing yet", "end"


class Team:
    """The first process's side. One video at a time: `slots` must be 1."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh, self.group = mesh, mesh.row
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._waiting = threading.Thread(target=self._wait, name="team", daemon=True)
        self._waiting.start()

    def lead(
        self, model: str, canvases: Sequence[Canvas], seeds: Sequence[int], asked: dict[str, Any],
        events: Generator[Progress | Chunk],
    ) -> Generator[Progress | Chunk]:  # fmt: skip
        """The events of what `model` samples with these arguments, for which the others do their part."""
        with self._turn, contextlib.closing(events):
            self._with_others(lambda: self.mesh.from_first(_Sampled(model, tuple(canvases), tuple(seeds), asked)))
            while True:
                event = self._with_others(lambda: None if self.mesh.any(False)[0] else next(events, None))
                if event is None:
                    return
                try:
                    yield event
                except GeneratorExit:
                    self._with_others(lambda: self.mesh.any(True))
                    raise

    def end(self) -> None:
        """Lets the others go; where a video still holds them, they end as this process does."""
        self._ended.set()
        self._waiting.join()
        if self._turn.acquire(timeout=GRACE):
            self.mesh.from_first(_END)

    def _with_others(self, act: Callable[[], T]) -> T:
        """What all processes do. Where it fails for a reason that the others may not have, they can no longer be of one
        mind: this process ends as if it had been killed, so that the video is made by whoever comes after it."""
        try:
            return act()
        except Exception as error:
            if isinstance(error, YozoraError) and not isinstance(error, NotEnoughMemory):
                raise
            _leave()

    def _wait(self) -> None:
        while not self._ended.wait(IDLE):
            with self._turn:
                self._with_others(lambda: self.mesh.from_first(_NOTHING))


def follow(mesh: Mesh, models: Models, model: str) -> None:
    """What the other processes do: their part of whatever the first one samples, until it ends, whatever signals come;
    where it dies, so do they. `model` is loaded at once. Raises ModelError."""
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # which torchrun sends to all: the first one knows what is to be done
        signal.signal(number, signal.SIG_IGN)
    models.get(model)
    while (told := mesh.from_first(None)) != _END:
        if isinstance(told, _Sampled):
            _do_as(told, mesh, models)


def _do_as(told: _Sampled, mesh: Mesh, models: Models) -> None:
    events = models.get(told.model).stream(told.canvases, told.seeds, **told.asked)
    with contextlib.closing(events):
        while not mesh.any(False)[0]:
            try:
                next(events)
            except StopIteration:
                return
            except NotEnoughMemory:  # which the others may have: they wait for this one until it is gone
                _leave()
            except YozoraError as error:  # as it is in the first process, which says so
                _log.debug("a video failed: %s", error)
                return


def _leave() -> NoReturn:
    """Ends this process, which torchrun takes as the end of all."""
    _log.critical("the processes of this worker have lost one another", exc_info=True)
    logging.shutdown()
    os._exit(1)
