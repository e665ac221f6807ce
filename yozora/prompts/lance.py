"""LanceDB's folders: opened, used by several at once, and its complaints in one line."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from yozora.errors import ConfigError, YozoraError, first_line

if sys.platform != "win32":
    import fcntl

LOCK = "library.lock"


def connect(folder: Path) -> Any:
    """Raises YozoraError where LanceDB is not installed."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of its own affairs
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise YozoraError(f"a library needs {error.name}: pip install 'yozora[understand]'") from None
    return lancedb.connect(folder)


@contextmanager
def locked(folder: Path, alone: bool) -> Iterator[None]:
    """In the block nobody has a library alone, or, `alone`, nobody else uses it; waits until that is so. Where nobody
    can write there is nobody to wait for, and some disks know no locks."""
    with ExitStack() as stack:
        for mode in ("ab", "rb"):  # whoever may only read waits, too
            with suppress(OSError):
                file = stack.enter_context((folder / LOCK).open(mode))
                if sys.platform != "win32":
                    fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
                break
        yield


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turns what LanceDB complains of into one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, json.JSONDecodeError) as error:
        reason = re.sub(r",? /\S+:\d+:\d+", "", first_line(error))[:200]  # where in its own source
        raise ConfigError(f"the library {folder} cannot be used ({reason}); copy or make it again") from None
