"""The unmodified official `openai` client, both versions that are about, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import openai_folders
import pytest
from serving import Served, missing

SCRIPT = Path(__file__).with_name("openai_scenarios.py")
NAMES = openai_folders.scenario_names(SCRIPT)


@pytest.fixture(scope="module", params=openai_folders.VERSIONS)
def told(request: pytest.FixtureRequest, served: Served) -> dict[str, str | None]:
    """What became of each scenario with one version."""
    folder = openai_folders.folder(request.param)
    if not folder.is_dir():
        missing(f"openai {request.param} (make clients)")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, str(SCRIPT), f"{served.url}/v1", served.key]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer.pop("version") == request.param
    return answer


@pytest.mark.parametrize("name", NAMES)
def test_scenario(told: dict[str, str | None], name: str) -> None:
    assert told[name] is None, told[name]


def test_all_of_them_ran(told: dict[str, str | None]) -> None:
    assert sorted(told) == sorted(NAMES)
