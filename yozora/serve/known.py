"""Who was recognised a moment ago: so that a client that asks again and again is not looked up every time.

What this process changes of an account holds at once; what another process changes, after KEEP seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from starlette.concurrency import run_in_threadpool

from yozora.serve.accounts import User, digest
from yozora.serve.database import Database

__all__ = ["KEEP", "Known"]

KEEP = 2.0  # seconds
MOST = 10_000


class Known:
    """Users by the hashes of their keys and sessions."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], tuple[float, User]] = {}
        self._changes = 0
        self._lock = Lock()

    async def user(self, token: str, look: Callable[[Database, str], User], database: Database) -> User:
        """Whose token it is, as `look`, which is called in a thread, finds out. Raises what that raises."""
        name = (look.__name__, digest(token))  # a key is no session
        until, user = self._users.get(name, (0.0, None))
        if user is not None and time.monotonic() < until:
            return user
        changes = self._changes
        user = await run_in_threadpool(look, database, token)
        with self._lock:
            if changes == self._changes:  # else what was looked up may be what was changed
                if len(self._users) >= MOST:
                    self._users.clear()
                self._users[name] = (time.monotonic() + KEEP, user)
        return user

    def forget(self) -> None:
        """Everybody is looked up anew: called after a key, a session or an account has changed."""
        with self._lock:
            self._changes += 1
            self._users.clear()
