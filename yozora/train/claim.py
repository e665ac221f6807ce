"""A run's folder is its own for as long as the run lasts: two at once would spoil each other's work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from yozora.errors import ConfigError
from yozora.train.mesh import ALONE, Mesh

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_held: set[Path] = set()  # by this process, which would lose a lock by closing the same file once more


@contextmanager
def claimed(folder: Path, mesh: Mesh = ALONE) -> Iterator[None]:
    """In the block no other run may have this folder, which there is; of several processes the first one has it for
    all. However a process ends, what it had is free again. Raises ConfigError where another run has it."""
    with ExitStack() as stack:
        problem = _take(folder, stack) if mesh.first else ""
        if problem := mesh.from_first(problem):
            raise ConfigError(problem)
        yield


def _take(folder: Path, stack: ExitStack) -> str:
    """Locks the folder until the stack is closed, unless this process has it. Returns what is in the way, "" for
    nothing."""
    place = folder.resolve()
    if place in _held:
        return ""
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        return f"cannot write to {folder} ({error.strerror}); choose another folder"
    stack.callback(os.close, file)
    _held.add(place)
    stack.callback(_held.discard, place)
    if sys.platform == "win32":
        return ""  # which has no such locks
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which, unlike flock, the data workers do not inherit
    except (BlockingIOError, PermissionError):
        return f"another run is at work in {folder}: wait until it has ended, or choose another folder"
    except OSError:
        return ""  # some network disks know no locks
    return ""
