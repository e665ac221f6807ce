"""Loaded models: within a budget, and never in the way of who only asks which there are."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from yozora.create.generator import Generator
from yozora.errors import ModelError
from yozora.serve import pool
from yozora.serve.orders import Order, draw
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


def test_a_model_in_use_is_waited_for(tiny_model: Path, tmp_path: Path) -> None:
    """Two jobs at a time want two models, and there is room for one: together they hold no more than the budget."""
    one, two = copies(tiny_model, tmp_path, 2)
    models = Models("cpu", budget=size_on_disk(one) + 1)
    come, go = threading.Event(), threading.Event()

    def other() -> None:
        with models.using(two):
            come.set()
            assert go.wait(30)

    thread = threading.Thread(target=other)
    with models.using(one) as first:
        thread.start()
        assert not come.wait(0.3) and models.names == [one]
        assert first is not None
    try:
        assert come.wait(30) and models.names == [two]
    finally:
        go.set()
        thread.join()
    assert models.get(one) is not first and models.names == [one]


def test_who_waits_for_room_stops_nobody_and_can_be_stopped(tiny_model: Path, tmp_path: Path) -> None:
    one, two = copies(tiny_model, tmp_path, 2)
    models = Models("cpu", budget=size_on_disk(one) + 1)
    waiting, cancelled, ended, streamed = (threading.Event() for _ in range(4))

    def still() -> None:
        waiting.set()
        if cancelled.is_set():
            raise InterruptedError

    def other() -> None:
        with pytest.raises(InterruptedError), models.using(two, still):
            pass
        ended.set()

    def stream(generator: Generator) -> None:
        canvas = draw(Order(prompt="a ball", seconds=0.1), generator.native, {})
        models.stream(one, [canvas], [0], steps=1).close()
        streamed.set()

    with models.using(one) as generator:
        threading.Thread(target=other, daemon=True).start()
        assert waiting.wait(30)
        threading.Thread(target=stream, args=(generator,), daemon=True).start()
        assert streamed.wait(10)
        cancelled.set()
        assert ended.wait(10) and models.names == [one]
    with models.using(two):
        assert models.names == [two]


def test_who_is_cancelled_while_a_model_loads_is_free_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model comes nevertheless, for others, and nobody is counted as using it."""
    one, two = copies(tiny_model, tmp_path, 2)
    begun, go, real = threading.Event(), threading.Event(), pool.load

    def slow(name: str, device: str, **more: object) -> Generator:
        begun.set()
        assert go.wait(30)
        return real(name, device)

    def still() -> None:
        if begun.is_set():
            raise InterruptedError

    monkeypatch.setattr(pool, "load", slow)
    models = Models("cpu", budget=size_on_disk(one) + 1)
    try:
        with pytest.raises(InterruptedError), models.using(one, still):
            pass
        assert not go.is_set() and models.names == []
        other = threading.Thread(target=models.get, args=(one,))
        other.start()
    finally:
        go.set()
    other.join(30)
    assert models.names == [one]
    with models.using(two):  # for which `one` has to go
        assert models.names == [two]


def test_a_model_that_cannot_be_loaded_is_everybodys_error(tiny_model: Path, tmp_path: Path) -> None:
    one, two = copies(tiny_model, tmp_path, 2)
    (Path(one) / "transformer" / "model.safetensors").write_bytes(b"no weights")
    models = Models("cpu")
    for still in (None, lambda: None):
        with pytest.raises(ModelError), models.using(one, still):
            pass
    assert models.get(two) is models.get(two) and models.names == [two]
