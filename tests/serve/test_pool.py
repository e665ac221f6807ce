"""Loaded models: within a budget, and never in the way of who only asks which there are."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from yozora.serve import pool
from yozora.serve.pool import Models, size_of, size_on_disk


def copies(model: Path, folder: Path, count: int) -> list[str]:
    return [str(shutil.copytree(model, folder / f"model-{number}")) for number in range(count)]


def test_models_go_where_the_budget_asks_it(tiny_model: Path, tmp_path: Path) -> None:
    one, two, three = copies(tiny_model, tmp_path, 3)
    models = Models("cpu")
    first = models.get(one)
    models.budget = size_of(first) + size_on_disk(two)  # room for two
    models.get(two)
    assert models.get(one) is first and models.names == [two, one]
    models.get(three)
    assert models.names == [one, three]
    assert Models("cpu", 1).get(one) is not None  # one that is larger than all there is runs alone


def test_a_model_that_is_loading_keeps_no_heartbeat_waiting(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that says nothing for some seconds is taken for dead."""
    begun, go, real = threading.Event(), threading.Event(), pool.load

    def slow(name: str, device: str, **_: object) -> object:
        begun.set()
        assert go.wait(30)
        return real(name, device)

    monkeypatch.setattr(pool, "load", slow)
    models = Models("cpu")
    loading = threading.Thread(target=models.get, args=(str(tiny_model),))
    loading.start()
    try:
        assert begun.wait(30)
        assert models.names == []
    finally:
        go.set()
        loading.join()
    assert models.names == [str(tiny_model)]
