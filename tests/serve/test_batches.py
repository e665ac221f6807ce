"""Variations that a worker has at the same time are sampled in one batch, and are what they are alone."""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from yozora.create.generator import Generator
from yozora.serve import batches, jobs
from yozora.serve.context import Service, open_service
from yozora.serve.jobs import Ticket
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.runs import Run, Stopped, begin
from yozora.serve.settings import read_settings
from yozora.serve.steps import NEXT, STEPS

GENERATE = next(step for step in STEPS if step.name == "generate")


@pytest.fixture
def several(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    """A service whose worker makes three videos at a time."""
    opened = open_service(read_settings(data=tmp_path / "several", model=str(tiny_model), slots=3))
    yield opened
    opened.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of every stream that is begun."""
    seen, stream = list[list[int]](), Generator.stream

    def noted(self: Generator, canvas: Any, seed: Any, **more: Any) -> Any:
        seen.append(list(seed))
        return stream(self, canvas, seed, **more)

    monkeypatch.setattr(Generator, "stream", noted)
    return seen


def runs_of(service: Service, count: int, **more: Any) -> list[Run]:
    order = Order(prompt="a red ball", seconds=1, seed=7, steps=4, **more)
    made = jobs.create(service, service.local, order, Ticket(count=count))
    runs = [begin(service, job.id, "worker") for job in made]
    for run in runs:
        assert run is not None
        run.scratch.mkdir(parents=True)
    return [run for run in runs if run is not None]


def at_once(models: Models, runs: list[Run], ends: Callable[[Run], object]) -> list[object]:
    """What comes of generating each, in threads of their own."""
    results: list[object] = [None] * len(runs)

    def work(number: int) -> None:
        results[number] = ends(runs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def frames(run: Run) -> bytes:
    return (run.scratch / "frames.raw").read_bytes()


def test_variations_are_sampled_together(several: Service, asked: list[list[int]], tiny_model: Path) -> None:
    models, runs = Models("cpu"), runs_of(several, 3)
    models.get(str(tiny_model))
    assert at_once(models, runs, lambda run: GENERATE.act(run, models, GENERATE)) == [NEXT] * 3
    assert [sorted(seeds) for seeds in asked] == [[7, 8, 9]]
    together = [frames(run) for run in runs]
    for run, made in zip(runs, together, strict=True):
        assert GENERATE.act(run, Models("cpu"), GENERATE) == NEXT  # now its others are past this step
        assert frames(run) == made
    assert len(set(together)) == 3 and [len(seeds) for seeds in asked] == [3, 1, 1, 1]


def test_one_that_is_cancelled_leaves_the_others(several: Service, asked: list[list[int]], tiny_model: Path) -> None:
    models, runs = Models("cpu"), runs_of(several, 3)
    models.get(str(tiny_model))
    jobs.cancel(several, several.local, runs[0].job_id)

    def ends(run: Run) -> object:
        try:
            return GENERATE.act(run, models, GENERATE)
        except Stopped:
            return "stopped"

    # the cancelled one joins them nevertheless: it learns of it at the first step
    assert at_once(models, runs, ends) == ["stopped", NEXT, NEXT]
    assert frames(runs[1]) and frames(runs[2])
    assert not (runs[0].scratch / "frames.raw").exists()


def test_what_goes_wrong_in_a_batch_is_everybodys(several: Service, tiny_model: Path) -> None:
    group = batches.Batches()

    def broken(seeds: Any) -> abc.Generator[Any]:
        raise ValueError(f"{len(seeds)} of them")
        yield

    def read(number: int) -> str:
        try:
            list(group.events("group", number, 2, broken))
        except ValueError as error:
            return str(error)
        return "nothing"

    told: list[str] = []
    threads = [threading.Thread(target=lambda n=n: told.append(read(n))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert told == ["2 of them"] * 2


def test_one_alone_waits_for_nobody(several: Service, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "GATHER", 60.0)
    assert runs_of(service, 3)[0].beside() == 1  # that worker makes one at a time
    one, two = runs_of(several, 2)
    assert one.beside() == two.beside() == 2
    two.report("generate", 0.1, always=True)
    assert one.beside() == 1
    nothing = batches.Batches().events("group", 1, 1, lambda seeds: (event for event in ()))
    assert list(nothing) == []
