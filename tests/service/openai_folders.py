"""Where the versions of the official client are: two cannot share an environment, so each has a folder, made by `make
clients`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

VERSIONS = ("2.54.0", "3.52.0")


def folder(version: str) -> Path:
    """Beside the environment that runs the tests."""
    return Path(sys.prefix) / "clients" / f"openai-{version.rsplit('.', 1)[0]}"


def scenario_names(script: Path) -> list[str]:
    """The scenarios of the script, which this process, without `openai`, cannot import."""
    listed = re.search(r"^SCENARIOS.*?= \((.*?)^\)", script.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert listed is not None
    return re.findall(r"\w+", listed[1])
