"""The README's commands work as written, in the order in which they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from yozora.cli import main
from yozora.create import enhance as enhancing
from yozora.models.enhancer import Enhancer, EnhancerConfig
from yozora.models.folder import save_module

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
WAYS = re.findall(r"^\| `(\w+)` \|.*\| `yozora (.*)` \|$", README, re.MULTILINE)


def test_the_ways_in_their_order(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """With a tiny model, and a smaller size to enhance to."""
    with torch.random.fork_rng():
        save_module(Enhancer(EnhancerConfig(width=4, depth=0, search_width=4, refine_width=4)), tmp_path / "weights")
    monkeypatch.setattr(enhancing, "WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    board, mask = re.findall(r"^(?:printf|\.venv/bin/python) .*$", README, re.MULTILINE)
    assert len(WAYS) == 13
    for verb, arguments in WAYS:
        if verb == "inpaint":
            subprocess.run([sys.executable, *shlex.split(mask)[1:]], check=True)
        if verb == "storyboard":
            subprocess.run(["/bin/sh", "-c", board], check=True)
        words = shlex.split(arguments.replace("1080p", "96p"))
        settings = [] if verb == "enhance" else ["--model", str(tiny_model), "--steps", "1"]
        assert words[0] == verb
        assert main([*words, *settings]) == 0, capsys.readouterr().err
        assert (tmp_path / words[words.index("-o") + 1]).stat().st_size > 0


def test_what_to_read_is_there() -> None:
    paths = re.search(r"\*\*Read it\*\* from (.*?)\. Rooms", README, re.DOTALL)
    assert paths is not None
    for path in re.findall(r"`([\w/]+\.py)`", paths[1]):
        assert (Path(__file__).parents[1] / "yozora" / path.removeprefix("yozora/")).is_file()
