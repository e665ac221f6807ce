"""Variations of one order that a worker has at the same time are sampled in one batch: one pass of the transformer for
all of them.

Each is a job of its own, with its own thread, progress and end: they read one stream of events, and whoever comes to
its end first computes the next one. One that is cancelled, or handed back, leaves; the others go on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from yozora.create.events import Chunk, Progress

__all__ = ["GATHER", "Batches"]

Event = Progress | Chunk
Begin = Callable[[Sequence[int]], Generator[Event]]
GATHER = 1.0  # seconds that the first of a group waits for those that come after it


class Batches:
    """The batches of one worker, by the group that their jobs are of. All of a group are alike but for their seeds."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open: dict[str, _Batch] = {}

    def events(self, group: str, seed: int, expected: int, begin: Begin) -> Generator[Event]:
        """The events of the video of one seed, sampled with up to `expected` of its group; `begin` samples several
        seeds. Must be closed."""
        with self._lock:
            batch = self._open.get(group)
            if batch is None:
                batch = self._open[group] = _Batch(begin)
            place = batch.join(seed)
            self._lock.notify_all()
            end = time.monotonic() + GATHER
            while not batch.begun and len(batch.seeds) < expected and (left := end - time.monotonic()) > 0:
                self._lock.wait(left)
            if not batch.begun:
                batch.begun = True
                del self._open[group]
                self._lock.notify_all()
        return batch.events(place)


class _Batch:
    """One stream for several readers, each of which is at its own place in it."""

    def __init__(self, begin: Begin) -> None:
        self.seeds: list[int] = []
        self.begun = False
        self._begin = begin
        self._turn = threading.Lock()  # whoever has it computes
        self._source: Generator[Event] | None = None
        self._coming: dict[int, deque[Event]] = {}
        self._error: BaseException | None = None

    def join(self, seed: int) -> int:
        """A place for one more video, before the batch has begun."""
        self.seeds.append(seed)
        self._coming[len(self.seeds) - 1] = deque()
        return len(self.seeds) - 1

    def events(self, place: int) -> Generator[Event]:
        """What concerns one video, as if it were alone."""
        try:
            while True:
                with self._turn:
                    while not self._coming[place]:
                        if not self._compute():
                            return
                    event = self._coming[place].popleft()
                yield event
        finally:
            with self._turn:
                del self._coming[place]
                if not self._coming and self._source is not None:
                    self._source.close()

    def _compute(self) -> bool:
        """Hands the next event to those whom it concerns; False where there is none. Raises what sampling raised, to
        every reader."""
        if self._error is not None:
            raise self._error
        try:
            if self._source is None:
                self._source = self._begin(self.seeds)
            event = next(self._source, None)
        except BaseException as error:
            self._error = error
            raise
        if event is None:
            return False
        if isinstance(event, Chunk):
            if event.index in self._coming:
                self._coming[event.index].append(replace(event, index=0))
        else:
            for coming in self._coming.values():
                coming.append(event)
        return True
