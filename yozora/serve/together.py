"""Questions to the database that come at the same time are answered by one look at it.

While a look is under way further questions gather, and the next look answers all of them. So the more is asked, the
less each answer costs; nobody waits for longer than two looks, and no answer is older than its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

__all__ = ["MOST", "Together"]

MOST = 200  # questions in one look
Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Together(Generic[Key, Answer]):
    """`look` answers several questions at once, in a thread; what it does not know is None."""

    def __init__(self, look: Callable[[Sequence[Key]], Mapping[Key, Answer]]) -> None:
        self._look = look
        self._open: dict[Key, asyncio.Future[Answer | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def ask(self, key: Key) -> Answer | None:
        """The answer to one question. Raises what the look raised."""
        loop = asyncio.get_running_loop()
        if key not in self._open:
            self._open[key] = loop.create_future()
        answer = self._open[key]
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._answer())
        return await asyncio.shield(answer)  # others may wait for it, too

    async def _answer(self) -> None:
        while self._open:
            taken = {key: self._open.pop(key) for key in list(self._open)[:MOST]}
            try:
                found = await run_in_threadpool(self._look, list(taken))
            except BaseException as error:
                for each in taken.values():
                    each.set_exception(error)
                    each.exception()  # those who asked may have gone: then nobody needs to hear of it
                if not isinstance(error, Exception):
                    raise
                continue
            for key, each in taken.items():
                each.set_result(found.get(key))
