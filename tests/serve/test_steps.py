"""Steps of a video, one at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from yozora.clip import Clip, FrameReader
from yozora.create.canvas import Canvas, Cue
from yozora.serve import jobs
from yozora.serve.accounts import User, create_account
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.runs import HandedBack, Run, Stopped, begin
from yozora.serve.steps import NEXT, STEPS, Verdict, _in_words
from yozora.serve.tables import Upload, Usage
from yozora.serve.uploads import receive
from yozora.serve.workflow import perform

REWRITE = next(step for step in STEPS if step.name == "rewrite")
PLEASE = "show me a red ball bouncing on the grass, please"
BALL = "A red ball bounces on the grass."


def run_of(service: Service, prompt: str, rewrite: bool | None) -> Run:
    name = jobs.create(service, service.local, Order(prompt=prompt, seconds=1, rewrite=rewrite))[0].id
    run = begin(service, name, "worker")
    assert run is not None
    return run


@pytest.mark.parametrize(("asked", "words"), [(True, {PLEASE: BALL}), (None, {}), (False, {})])
def test_prompts_are_rewritten_where_that_is_wanted(service: Service, asked: bool | None, words: dict) -> None:
    """Of itself only for the shipped model: another may know other words."""
    run = run_of(service, PLEASE, asked)
    assert REWRITE.act(run, Models("cpu"), REWRITE) == NEXT
    assert json.loads((run.scratch / "words.json").read_text()) == words


def test_who_rewrites(service: Service) -> None:
    models = Models("cpu")
    assert models.rewriter("mini", "none", True) is None
    assert models.rewriter("other", "", None) is None
    assert models.rewriter("other", "mini", None) is models.rewriter("other", "", True) is not None
    assert models.rewriter("mini", "", None) is models.rewriter(None, "mini", True) is not None
    assert models.rewriter("mini", "", False) is None


def test_what_was_asked_stays_known() -> None:
    canvas = Canvas(64, 64, 9, 8.0, (Cue(0, PLEASE), Cue(0.5, "a blue cube")))
    cues = _in_words(canvas, {PLEASE: BALL, "a blue cube": "a blue cube"}).cues
    assert [(cue.prompt, cue.asked) for cue in cues] == [(BALL, PLEASE), ("a blue cube", "")]


@pytest.fixture
def sent(shared: Service, tmp_path: Path) -> tuple[User, str]:
    """Somebody with the plan `free`, 10 s at a time and 300 a month, and a clip of 6 s that they have sent, whose file
    does not say so."""
    user = create_account(shared.database, "one@example.org", None, 1990, plan="free")
    Clip(np.zeros((48, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    clip = receive(shared, user, (tmp_path / "clip.mp4").read_bytes())
    assert clip.seconds == 6
    with shared.database.writing() as session:
        session.execute(sa.update(Upload).values(seconds=None))
    return user, clip.id


def checked(service: Service, user: User, order: Order) -> tuple[Run, Verdict]:
    """A run of an order, and what its first step says."""
    run = begin(service, jobs.create(service, user, order)[0].id, "worker")
    assert run is not None
    return run, perform(run, Models("cpu"), STEPS[0])


def used(service: Service, user: User) -> float:
    with service.database.reading() as session:
        return session.scalars(sa.select(Usage.seconds).where(Usage.account_id == user.id)).one()


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({"way": "remix"}, 6),
        ({"way": "extend", "seconds": 2}, 8),
        ({"way": "recut", "keep": ((0, 2), (3, 5))}, 5),
    ],
)
def test_what_is_made_of_an_upload_is_charged_as_it_is(
    shared: Service, sent: tuple[User, str], asked: dict[str, object], seconds: float
) -> None:
    user, clip = sent
    order = Order.model_validate({"prompt": "a red ball", "clip": clip, **asked})
    run, verdict = checked(shared, user, order)
    assert verdict == NEXT and used(shared, user) == pytest.approx(seconds, abs=0.5)
    before = used(shared, user)
    assert perform(run, Models("cpu"), STEPS[0]) == NEXT and used(shared, user) == before  # it is charged once
    assert run.fail("server_error", "x") and used(shared, user) == 0


def test_an_upload_is_no_way_around_the_plan(shared: Service, sent: tuple[User, str]) -> None:
    user, clip = sent
    longer = Order(way="extend", prompt="a red ball", clip=clip, seconds=8)  # 14 s
    run, verdict = checked(shared, user, longer)
    assert verdict[1] == "invalid_value" and "longer than the plan free allows" in verdict[2]
    assert run.fail(verdict[1], verdict[2]) and used(shared, user) == 0
    with shared.database.writing() as session:
        session.execute(sa.update(Usage).values(seconds=297.0))
    run, verdict = checked(shared, user, Order(way="remix", prompt="a red ball", clip=clip))
    assert verdict[1] == "insufficient_quota"
    assert run.fail(verdict[1], verdict[2]) and used(shared, user) == 297


@pytest.mark.parametrize("end", [Stopped, HandedBack])
def test_reading_what_is_given_ends_with_the_wish_for_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    Clip(np.zeros((60, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    clip = receive(service, service.local, (tmp_path / "clip.mp4").read_bytes())
    order = Order(way="remix", prompt="a red ball", clip=clip.id)
    name = jobs.create(service, service.local, order)[0].id
    run = begin(service, name, "worker", lambda: end is HandedBack and read > 20)
    assert run is not None
    read, as_it_is = 0, FrameReader.__next__

    def count(reader: FrameReader) -> np.ndarray:
        nonlocal read
        read += 1
        if read == 20 and end is Stopped:
            jobs.cancel(service, service.local, name)
        return as_it_is(reader)

    monkeypatch.setattr(FrameReader, "__next__", count)
    monkeypatch.setattr("yozora.serve.runs.OFTEN", 0.0)
    with pytest.raises(end):
        STEPS[0].act(run, Models("cpu"), STEPS[0])
    assert 20 <= read <= 24


def test_what_is_given_is_read_once_a_run(
    shared: Service, sent: tuple[User, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, clip = sent
    run, verdict = checked(shared, user, Order(way="remix", prompt="a red ball", clip=clip, rewrite=True))
    assert verdict == NEXT
    monkeypatch.setattr(FrameReader, "__next__", None)  # whoever reads now fails
    assert REWRITE.act(run, Models("cpu"), REWRITE) == NEXT


@pytest.fixture
def upload(shared: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[User, Callable[[], str]]:
    """Somebody who may have three uploads, and what sends one more and says its id."""
    monkeypatch.setattr("yozora.serve.uploads.MOST", 3)
    user = create_account(shared.database, "one@example.org", None, 1990, plan="pro")
    Clip(np.zeros((8, 32, 32, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    content = (tmp_path / "clip.mp4").read_bytes()
    return user, lambda: receive(shared, user, content).id


def kept(service: Service) -> set[str]:
    """Ids of the uploads that there are, each with its file."""
    with service.database.reading() as session:
        names = set(session.scalars(sa.select(Upload.id)))
    assert set(map(os.path.basename, service.storage.keys())) == names
    return names


def test_more_uploads_than_are_kept_push_out_the_oldest_that_nobody_waits_for(
    shared: Service, upload: tuple[User, Callable[[], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yozora.serve.uploads.MOMENT", -1)  # none is fresh
    user, send = upload
    first = send()
    jobs.create(shared, user, Order(way="remix", prompt="a red ball", clip=first))
    later = [send() for _ in range(4)]
    assert kept(shared) == {first, *later[-2:]}
    for name in later[-2:]:
        jobs.create(shared, user, Order(way="remix", prompt="a red ball", clip=name))
    with pytest.raises(ApiError, match="3 uploads, which videos are waiting"):
        send()
    assert kept(shared) == {first, *later[-2:]}


def test_what_was_sent_for_an_order_that_is_to_come_does_not_make_way(
    shared: Service, upload: tuple[User, Callable[[], str]]
) -> None:
    user, send = upload
    ordered = [send() for _ in range(2)]
    made = [jobs.create(shared, user, Order(way="remix", prompt="a ball", clip=name))[0].id for name in ordered]
    start = send()
    with pytest.raises(ApiError, match="or which have just come") as refusal:
        send()  # the end of the same blend
    assert refusal.value.status == 429 and kept(shared) == {*ordered, start}
    jobs.delete(shared, user, made[0])  # its clip has served
    end = send()
    assert kept(shared) == {ordered[1], start, end}
    jobs.create(shared, user, Order(way="blend", prompt="a ball", clip=start, other=end))
