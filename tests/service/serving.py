"""What a test knows of a running server, and what becomes of it where something is not installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import processes
import pytest


def missing(what: str) -> None:
    """Skips; where everything must be there, fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed")


@dataclass(frozen=True)
class Served:
    """A running server: its address, somebody's key and somebody else's, and the database behind it."""

    url: str
    key: str
    other: str
    database_url: str
    data: Path
    process: processes.Process
