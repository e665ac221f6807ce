from __future__ import annotations

from pathlib import Path

import pytest

from yozora.errors import ConfigError
from yozora.serve.plans import SHIPPED, find_plan, load_plans


def test_the_shipped_plans() -> None:
    assert list(load_plans()) == ["local", "free", "plus", "pro"]
    assert find_plan("free").concurrency == 1
    with pytest.raises(ConfigError, match="known: local, free"):
        find_plan("gold")


def test_ones_own_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plans.toml"
    monkeypatch.setenv("YOZORA_PLANS", str(path))
    path.write_text(SHIPPED.read_text().replace("[pro]", "[gold]"))
    assert find_plan("gold").concurrency == 16


@pytest.mark.parametrize("text", ["[free", "free = 1", "[free]\nconcurrency = 0", "[local]\nx = 1", ""])
def test_broken_plans_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / f"{abs(hash(text))}.toml"
    path.write_text(text)
    monkeypatch.setenv("YOZORA_PLANS", str(path))
    with pytest.raises(ConfigError) as raised:
        load_plans()
    assert "\n" not in str(raised.value)
