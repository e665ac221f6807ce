"""Videos that a worker has at the same time are sampled in one batch where they are alike but for their words, their
pictures and their seeds, whoever ordered them: one pass of the transformer for all.

Each is a job of its own, with its own thread, progress and end: they read one stream of events, and whoever comes to
its end first computes the next one. One that is cancelled, or handed back, leaves; the others go on without it. Nobody
waits for company that is not on its way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace

from yozora.create.canvas import Canvas
from yozora.create.events import Chunk, Progress
from yozora.serve.metrics import PASS_VIDEOS

__all__ = ["GATHER", "Apart", "Batches", "Begin", "Event", "Video"]

Event = Progress | Chunk
Begin = Callable[[Sequence[Canvas], Sequence[int], AbstractSet[int]], Generator[Event]]
"""Samples videos of these canvases and seeds in one batch; those whose numbers come into the set are left out."""

GATHER = 1.0  # seconds that those who are on their way are waited for, at most
LOOK = 0.05  # seconds from one look for them to the next
PAUSE = 0.5  # seconds after which who waits for its turn asks whether it is still wanted
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Video:
    """What one job wants."""

    name: str
    canvas: Canvas
    seed: int


class Apart(Exception):
    """A batch of several has failed. What is wrong may be wrong with one of them, or there may not have been enough
    memory for all: so each is to be made by itself, in its `turn`."""

    def __init__(self, reason: str, one: threading.Lock) -> None:
        super().__init__(reason)
        self._one = one

    @contextmanager
    def turn(self, still: Callable[[], None]) -> Iterator[None]:
        """Alone among those of the batch. `still` is called while others are not done, and may raise."""
        while not self._one.acquire(timeout=PAUSE):
            still()
        try:
            yield
        finally:
            self._one.release()


class Batches:
    """The batches of one worker, by the kind that their videos are of: all of a kind can be sampled together."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open: dict[Hashable, _Batch] = {}

    def events(
        self, kind: Hashable, video: Video, most: int, coming: Callable[[], bool], begin: Begin
    ) -> Generator[Event]:
        """The events of one video, as if it were alone, sampled with up to `most` - 1 others of its kind: those that
        are here, and those that are on their way, as long as `coming` says so, which is asked again and again and may
        raise. Must be read and closed; raises Apart."""
        with self._lock:
            batch = self._open.get(kind)
            if batch is None:
                batch = self._open[kind] = _Batch(begin)
            place = batch.join(video)
            if batch.count >= most:
                self._close(kind, batch)
            self._lock.notify_all()
        try:
            self._gather(kind, batch, coming)
        except BaseException:
            batch.leave(place)
            with self._lock:
                if not batch.count and not batch.closed:
                    self._close(kind, batch)
            raise
        return batch.events(place)

    def _gather(self, kind: Hashable, batch: _Batch, coming: Callable[[], bool]) -> None:
        """Until the batch is full, or all are here."""
        end = time.monotonic() + GATHER
        while True:
            more = coming() and time.monotonic() < end  # without the lock: it asks a database
            with self._lock:
                if not more and not batch.closed:
                    self._close(kind, batch)
                if batch.closed:
                    return
                self._lock.wait(LOOK)

    def _close(self, kind: Hashable, batch: _Batch) -> None:
        """Nobody joins any more; by who has the lock."""
        batch.closed = True
        del self._open[kind]
        self._lock.notify_all()


class _Batch:
    """One stream for several readers, each of which is at its own place in it."""

    def __init__(self, begin: Begin) -> None:
        self.closed = False
        self._begin = begin
        self._turn = threading.Lock()  # whoever has it computes
        self._one = threading.Lock()
        self._videos: list[Video] = []
        self._coming: dict[int, deque[Event]] = {}
        self._source: Generator[Event] | None = None
        self._rows: list[int] = []  # the places of those that are sampled
        self._left: set[int] = set()  # the rows of those that have left since
        self._error: Exception | None = None  # of one alone
        self._reason: str | None = None  # of several; not the error itself, which holds all that was computed

    @property
    def count(self) -> int:
        """How many are here."""
        return len(self._coming)

    def join(self, video: Video) -> int:
        """A place for one more, before the batch is closed."""
        self._videos.append(video)
        place = len(self._videos) - 1
        self._coming[place] = deque()
        return place

    def leave(self, place: int) -> None:
        """One goes; with the last one, sampling ends."""
        with self._turn:
            del self._coming[place]
            if place in self._rows:
                self._left.add(self._rows.index(place))
            if not self._coming and self._source is not None:
                self._source.close()

    def events(self, place: int) -> Generator[Event]:
        """What concerns one video."""
        try:
            while True:
                with self._turn:
                    while not self._coming[place]:
                        if not self._compute():
                            return
                    event = self._coming[place].popleft()
                yield event
        finally:
            self.leave(place)

    def _compute(self) -> bool:
        """Hands the next event to those whom it concerns; False where there is none. Raises what sampling raised, or
        Apart, to every reader."""
        if self._error is None and self._reason is None:
            try:
                if self._source is None:
                    self._source = self._start()
                event = next(self._source, None)
            except Exception as error:
                if len(self._rows) > 1:
                    self._reason = " ".join(f"{type(error).__name__}: {error}".split())
                else:
                    self._error = error
            else:
                if event is not None:
                    self._deliver(event)
                return event is not None
        if self._error is not None:
            raise self._error
        raise Apart(self._reason or "", self._one)

    def _start(self) -> Generator[Event]:
        self._rows = list(self._coming)
        videos = [self._videos[place] for place in self._rows]
        PASS_VIDEOS.observe(len(videos))
        if len(videos) > 1:
            _log.info("videos are sampled together", extra={"jobs": [video.name for video in videos]})
        return self._begin([video.canvas for video in videos], [video.seed for video in videos], self._left)

    def _deliver(self, event: Event) -> None:
        if event.index is None:
            for coming in self._coming.values():
                coming.append(event)
        elif (place := self._rows[event.index]) in self._coming:
            own = replace(event, index=0) if isinstance(event, Chunk) else replace(event, index=None)
            self._coming[place].append(own)
