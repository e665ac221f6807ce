"""Videos that a worker has at the same time are sampled in one batch where they are alike, and are what they are
alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import abc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from yozora.clip import Clip
from yozora.create.canvas import Canvas, Cue
from yozora.create.events import Chunk, Progress
from yozora.create.generator import Generator
from yozora.create.sizes import Native
from yozora.errors import YozoraError
from yozora.serve import batches, jobs
from yozora.serve.accounts import User, create_account
from yozora.serve.batches import Apart, Batches, Video
from yozora.serve.context import Service, open_service
from yozora.serve.jobs import Ticket
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.runs import Run, Stopped, begin
from yozora.serve.settings import read_settings
from yozora.serve.steps import NEXT, STEPS
from yozora.serve.tables import Job
from yozora.serve.uploads import receive

GENERATE = next(step for step in STEPS if step.name == "generate")
CANVAS = Canvas(64, 64, 1, 8.0, (Cue(0.0, "a"),))


@pytest.fixture
def several(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with accounts whose worker makes three videos at a time."""
    settings = read_settings(data=tmp_path / "several", model=str(tiny_model), slots=3, accounts=True)
    opened = open_service(settings)
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


def someone(service: Service, name: str) -> User:
    return create_account(service.database, f"{name}@example.org", None, 1990, plan="pro")


def begun(service: Service, user: User, order: Order, ticket: Ticket | None = None) -> list[Run]:
    """The runs of an order."""
    runs = [begin(service, job.id, "worker") for job in jobs.create(service, user, order, ticket)]
    for run in runs:
        assert run is not None
        run.scratch.mkdir(parents=True)
    return [run for run in runs if run is not None]


def of_two(service: Service, **more: Any) -> list[Run]:
    """A run each of two accounts that want different things, and a third of the first."""
    one, two = someone(service, "one"), someone(service, "two")
    words = [(one, "a red ball", 7), (two, "grass that bounces on the grass", 8), (one, "on", 9)]
    return [
        run
        for user, prompt, seed in words
        for run in begun(service, user, Order(prompt=prompt, seconds=1, seed=seed, steps=4, **more))
    ]


def at_once(runs: list[Run], ends: Callable[[Run], object]) -> list[object]:
    """What comes of each, in threads of their own."""
    results: list[object] = [None] * len(runs)

    def work(number: int) -> None:
        results[number] = ends(runs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def generated(service: Service, models: Models, runs: list[Run]) -> list[object]:
    """What the step says of each, of all at once."""
    models.get(service.settings.model)
    return at_once(runs, lambda run: GENERATE.act(run, models, GENERATE))


def frames(run: Run) -> bytes:
    return (run.scratch / "frames.raw").read_bytes()


def same_alone(runs: list[Run], asked: list[list[int]]) -> None:
    """Each is made again, by itself."""
    together, before = [frames(run) for run in runs], len(asked)
    for run, made in zip(runs, together, strict=True):
        assert GENERATE.act(run, Models("cpu"), GENERATE) == NEXT  # now its others are past this step
        assert frames(run) == made
    assert len(set(together)) == len(runs) and [len(seeds) for seeds in asked[before:]] == [1] * len(runs)


@pytest.mark.parametrize("more", [{}, {"previews": True}, {"negative": "grass"}], ids=["plain", "previews", "negative"])
def test_orders_of_two_accounts_are_sampled_together(
    several: Service, asked: list[list[int]], more: dict[str, Any]
) -> None:
    runs = of_two(several, **more)
    assert generated(several, Models("cpu"), runs) == [NEXT] * 3
    assert [sorted(seeds) for seeds in asked] == [[7, 8, 9]]
    same_alone(runs, asked)


def test_variations_are_sampled_together(several: Service, asked: list[list[int]]) -> None:
    order = Order(prompt="a red ball", seconds=1, seed=7, steps=4)
    runs = begun(several, someone(several, "one"), order, Ticket(count=3))
    assert generated(several, Models("cpu"), runs) == [NEXT] * 3
    assert [sorted(seeds) for seeds in asked] == [[7, 8, 9]]
    same_alone(runs, asked)


def test_videos_that_start_from_pictures_are_sampled_together(
    several: Service, asked: list[list[int]], tmp_path: Path
) -> None:
    runs = []
    for number in range(2):
        user = someone(several, str(number))
        picture = np.random.default_rng(number).integers(0, 256, (1, 64, 64, 3), np.uint8)
        Clip(picture, 8.0).write(tmp_path / "picture.png")
        sent = receive(several, user, (tmp_path / "picture.png").read_bytes())
        runs += begun(several, user, Order(way="animate", prompt="a ball", image=sent.id, seconds=1, seed=number))
    assert generated(several, Models("cpu"), runs) == [NEXT] * 2
    assert [sorted(seeds) for seeds in asked] == [[0, 1]]
    same_alone(runs, asked)


def test_what_differs_in_shape_of_work_is_sampled_apart(several: Service, asked: list[list[int]]) -> None:
    user, runs = someone(several, "one"), []
    for more in ({}, {"steps": 3}, {"seconds": 0.5}, {"size": "96x64"}, {"guidance": 1}, {"previews": True}):
        runs += begun(several, user, Order.model_validate({"prompt": "a", "seconds": 1, "seed": len(runs)} | more))
    since = time.monotonic()
    assert generated(several, Models("cpu"), runs) == [NEXT] * 6
    assert sorted(asked) == [[n] for n in range(6)]
    assert time.monotonic() - since < 30


def test_one_that_is_cancelled_leaves_the_others(several: Service, asked: list[list[int]]) -> None:
    runs = of_two(several, previews=True)
    user = someone(several, "three")
    with several.database.writing() as session:
        session.execute(sa.update(Job).where(Job.id == runs[0].job_id).values(account_id=user.id))
    real = runs[0].show

    def show(step: int, picture: bytes) -> None:
        real(step, picture)
        if step == 2:
            jobs.cancel(several, user, runs[0].job_id)

    runs[0].show = show  # type: ignore[method-assign]

    def ends(run: Run) -> object:
        try:
            return GENERATE.act(run, models, GENERATE)
        except Stopped:
            return "stopped"

    models = Models("cpu")
    models.get(several.settings.model)
    assert at_once(runs, ends) == ["stopped", NEXT, NEXT]
    assert [sorted(seeds) for seeds in asked] == [[7, 8, 9]]
    assert not (runs[0].scratch / "frames.raw").exists()
    same_alone(runs[1:], asked)


def test_what_fails_together_is_made_one_by_one(
    several: Service, asked: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt that breaks whatever it is in fails alone, and memory that does not do for all may do for each."""
    stream, going, most = Generator.stream, list[int](), list[int]()

    def fails(self: Generator, canvas: Any, seed: Any, **more: Any) -> abc.Generator[Any]:
        events = stream(self, canvas, seed, **more)
        if 8 not in seed:
            going.append(1)
            most.append(len(going))
            try:
                yield from events
            finally:
                going.pop()
            return
        yield next(events)
        yield next(events)
        raise YozoraError("this prompt breaks it")

    monkeypatch.setattr(Generator, "stream", fails)
    runs = of_two(several)

    def ends(run: Run) -> object:
        try:
            return GENERATE.act(run, models, GENERATE)
        except YozoraError as error:
            return str(error)

    models = Models("cpu")
    models.get(several.settings.model)
    assert at_once(runs, ends) == [NEXT, "this prompt breaks it", NEXT]
    assert most == [1, 1]  # one after another
    with several.database.reading() as session:
        assert all(each <= 85 for each in session.scalars(sa.select(Job.progress)))


def test_who_has_lost_a_worker_goes_by_itself(several: Service, asked: list[list[int]]) -> None:
    """A video that kills whoever makes it takes no others with it again and again."""
    runs = of_two(several)
    again = [begin(several, run.job_id, "another") for run in runs]
    for run in again:
        assert run is not None and run.lost == 1
        run.scratch.mkdir(parents=True)
    assert generated(several, Models("cpu"), [run for run in again if run is not None]) == [NEXT] * 3
    assert sorted(asked) == [[7], [8], [9]]


def test_no_more_than_the_setting_and_the_size_let(several: Service, asked: list[list[int]]) -> None:
    native = Native(((64, 64),), 1, 9, 8.0)
    assert [native.at_once(64, 64, 9, most) for most in (1, 4)] == [1, 4]
    assert [native.at_once(64, 64, 400, 4), native.at_once(128, 64, 9, 4), native.at_once(256, 256, 9, 4)] == [4, 2, 1]
    assert native.at_once(64, 64, 1, 4) == 4
    two = Service(several.settings.model_copy(update={"batch": 2}), several.database, several.storage)
    runs = of_two(two)
    assert generated(two, Models("cpu"), runs) == [NEXT] * 3
    assert sorted(map(len, asked)) == [1, 2]
    one = Service(several.settings.model_copy(update={"slots": 1}), several.database, several.storage)
    asked.clear()
    assert generated(one, Models("cpu"), begun(one, someone(one, "three"), Order(prompt="a", seconds=1, seed=3))) == [
        NEXT
    ]
    assert asked == [[3]]


def test_those_on_their_way_are_waited_for_and_nobody_else(several: Service) -> None:
    user = someone(several, "one")
    order = Order(prompt="a red ball", seconds=1)
    one, two = (begun(several, user, order)[0] for _ in range(2))
    other = begun(several, user, order.model_copy(update={"steps": 3}))[0]
    one.report("generate", 0.1)
    assert one.awaits() and not two.awaits()
    two.report("rewrite", 0.1)
    assert one.awaits()
    two.report("generate", 0.1)
    assert not one.awaits() and not two.awaits()
    alike = order.model_copy(update={"prompt": "something else", "seed": 3, "enhance": "720p"})
    waiting = jobs.create(several, user, alike)[0].id
    assert not one.awaits()  # there is no room for it: three are being made
    other.fail("x", "x")
    assert one.awaits()
    first = jobs.create(several, user, order.model_copy(update={"steps": 5}), Ticket(lane="priority"))[0].id
    assert not one.awaits()  # another one is next
    jobs.cancel(several, user, first)
    assert one.awaits()
    jobs.cancel(several, user, waiting)
    assert not one.awaits()


# ---- the batch itself ------------------------------------------------------------------------------------------------


def video(number: int) -> Video:
    return Video(f"video {number}", CANVAS, number)


def counted(canvases: Any, seeds: Any, left: Any) -> abc.Generator[Progress | Chunk]:
    """A step, and a frame for each."""
    yield Progress("sample", 1, 1, 0.0)
    for row, seed in enumerate(seeds):
        yield Chunk(row, np.full((1, 1, 1, 3), seed, np.uint8))


def read_at_once(count: int, most: int, coming: Callable[[], bool], begin: Any = counted) -> list[list[int]]:
    """What so many readers of one kind are told: the numbers in their frames."""
    group, told = Batches(), [list[int]() for _ in range(count)]

    def read(number: int) -> None:
        with contextlib.closing(group.events("kind", video(number), most, coming, begin)) as events:
            told[number] = [int(each.frames[0, 0, 0, 0]) for each in events if isinstance(each, Chunk)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert group._open == {}
    return told


def test_nobody_waits_longer_than_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "GATHER", 60.0)
    since = time.monotonic()
    assert read_at_once(1, 4, lambda: False) == [[0]]
    assert read_at_once(3, 3, lambda: True) == [[0], [1], [2]]  # it is full
    assert time.monotonic() - since < 10
    monkeypatch.setattr(batches, "GATHER", 0.2)
    assert read_at_once(2, 3, lambda: True) == [[0], [1]]


def test_a_batch_is_never_larger_than_it_may_be() -> None:
    sizes: list[int] = []

    def noted(canvases: Any, seeds: Any, left: Any) -> abc.Generator[Progress | Chunk]:
        sizes.append(len(seeds))
        return counted(canvases, seeds, left)

    assert read_at_once(7, 3, lambda: True, noted) == [[n] for n in range(7)]
    assert max(sizes) == 3 and sum(sizes) == 7


def test_who_stops_while_others_are_awaited_is_not_sampled() -> None:
    group, sampled = Batches(), list[list[int]]()

    def noted(canvases: Any, seeds: Any, left: Any) -> abc.Generator[Progress | Chunk]:
        sampled.append(list(seeds))
        return counted(canvases, seeds, left)

    def stopped() -> bool:
        raise Stopped

    with pytest.raises(Stopped):
        group.events("kind", video(1), 3, stopped, noted)
    assert group._open == {}
    with contextlib.closing(group.events("kind", video(2), 3, lambda: False, noted)) as events:
        assert len(list(events)) == 2
    assert sampled == [[2]] and group._open == {}


def test_one_alone_fails_as_it_is_and_several_apart() -> None:
    def broken(canvases: Any, seeds: Any, left: Any) -> abc.Generator[Progress | Chunk]:
        yield Progress("sample", 1, 2, 0.0)
        raise ValueError(f"{len(seeds)} of them")

    with pytest.raises(ValueError, match="1 of them"):
        list(Batches().events("kind", video(0), 2, lambda: False, broken))
    group, told = Batches(), list[str]()

    def read(number: int) -> None:
        try:
            list(group.events("kind", video(number), 2, lambda: True, broken))
        except Apart as apart:
            told.append(str(apart))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert told == ["ValueError: 2 of them"] * 2
