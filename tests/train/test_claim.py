"""A run's folder belongs to one run at a time, and is free again however that one ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from yozora.errors import ConfigError
from yozora.train.claim import claimed

HOLDER = """
import sys
from pathlib import Path
from yozora.train.claim import claimed
with claimed(Path(sys.argv[1])):
    print("has it", flush=True)
    sys.stdin.read()
"""


def test_another_run_waits_until_the_first_has_ended_even_by_a_kill(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
            with pytest.raises(ConfigError, match=r"another run is at work in .*wait until"), claimed(tmp_path):
                raise AssertionError("both have it")
        finally:
            holder.kill()
    with claimed(tmp_path):
        pass
    with claimed(tmp_path):  # and again: a run leaves nothing in the way
        pass


def test_what_one_run_has_it_may_claim_again_and_keeps(tmp_path: Path) -> None:
    """As fine-tuning does, whose training is one part of it."""
    with claimed(tmp_path):
        with claimed(tmp_path / "." / ""):
            pass
        other = subprocess.run([sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True, input="")
        assert "another run is at work" in other.stderr and other.stdout == ""


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ConfigError, match="cannot write to"), claimed(tmp_path):
        pass
