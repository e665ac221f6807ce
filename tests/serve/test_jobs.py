"""Orders, queues and allowances: everything about a job but its making."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from yozora.clip import Clip
from yozora.create.limits import MAX_SEED
from yozora.serve import jobs
from yozora.serve.accounts import User, create_account, create_key
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.jobs import Ticket
from yozora.serve.orders import Card, Order, expected
from yozora.serve.runs import begin, hand_back
from yozora.serve.tables import COMPLETED, FAILED, Job, Preview, Upload
from yozora.serve.videos_api import _upload

BALL = Order(prompt="a red ball", seconds=1)


def someone(service: Service, plan: str = "pro", name: str = "one") -> User:
    return create_account(service.database, f"{name}@example.org", None, 1990, plan=plan)


def queued(service: Service) -> list[str]:
    """Ids of the workflows in the queue, in its order."""
    with service.database.engine.connect() as connection:
        text = "SELECT workflow_uuid FROM workflow_status WHERE status = 'ENQUEUED' ORDER BY priority, created_at"
        return list(connection.execute(sa.text(text)).scalars())


def look(service: Service, name: str) -> Job:
    with service.database.reading() as session:
        job = session.get(Job, name)
        assert job is not None
        return job


def test_variations_have_seeds_in_a_row(service: Service) -> None:
    made = jobs.create(service, service.local, BALL.model_copy(update={"seed": 7}), Ticket(count=3))
    assert [job.order["seed"] for job in made] == [7, 8, 9]
    assert len({job.group_id for job in made}) == 1
    assert queued(service) == [job.id for job in made]


def test_seeds_in_a_row_end_where_seeds_do(service: Service) -> None:
    last = BALL.model_copy(update={"seed": MAX_SEED})
    with pytest.raises(ApiError, match="seeds in a row") as raised:
        jobs.create(service, service.local, last, Ticket(count=2))
    assert (raised.value.status, raised.value.param) == (400, "seed") and queued(service) == []
    (job,) = jobs.create(service, service.local, last)
    assert begin(service, job.id, "worker") is not None


def test_lanes_and_priorities(service: Service) -> None:
    tickets = [Ticket(lane="relaxed"), Ticket(), Ticket(priority=3), Ticket(lane="priority")]
    relaxed, standard, before, first = (jobs.create(service, service.local, BALL, each)[0].id for each in tickets)
    assert queued(service) == [first, before, standard, relaxed]
    for wrong in (Ticket(lane="fast"), Ticket(priority=10), Ticket(folder="folder_none")):
        with pytest.raises(ApiError):
            jobs.create(service, service.local, BALL, wrong)


def test_an_account_has_no_more_in_the_queue_than_its_plan_lets(shared: Service) -> None:
    """So that those who come later need not wait for all of it."""
    one, two = someone(shared, "free"), someone(shared, "free", "two")
    first, second, third = (jobs.create(shared, one, BALL)[0].id for _ in range(3))
    other = jobs.create(shared, two, BALL)[0].id
    assert queued(shared) == [first, other]
    jobs.cancel(shared, one, first)
    assert second in queued(shared) and third not in queued(shared)
    run = begin(shared, second, "worker")
    assert run is not None and run.finish({}, {})
    assert third in queued(shared)


def test_the_same_key_orders_once(service: Service) -> None:
    ticket = Ticket(key="k", fingerprint="f", count=2)
    first = jobs.create(service, service.local, BALL, ticket)
    again = jobs.create(service, service.local, BALL, ticket)
    assert [job.id for job in again] == [job.id for job in first]
    with pytest.raises(ApiError, match="Idempotency-Key"):
        jobs.create(service, service.local, BALL, Ticket(key="k", fingerprint="g"))


def test_the_same_key_orders_once_though_some_of_it_was_deleted(service: Service) -> None:
    ticket = Ticket(key="k", fingerprint="f", count=3)
    first, *rest = jobs.create(service, service.local, BALL, ticket)
    jobs.delete(service, service.local, first.id)
    assert [job.id for job in jobs.create(service, service.local, BALL, ticket)] == [job.id for job in rest]
    with pytest.raises(ApiError, match="Idempotency-Key"):
        jobs.create(service, service.local, BALL, Ticket(key="k", fingerprint="g", count=3))
    (other,) = jobs.create(service, service.local, BALL, Ticket(key="k#1", fingerprint="f"))
    assert other.id not in {job.id for job in rest}


def test_what_is_cancelled_or_deleted_leaves_the_queue(service: Service) -> None:
    """Or workers would take one after the other, and everybody wait for them."""
    made = [jobs.create(service, service.local, BALL)[0].id for _ in range(4)]
    jobs.cancel(service, service.local, made[0])
    jobs.delete(service, service.local, made[1])
    assert begin(service, made[2], "worker") is not None
    jobs.cancel(service, service.local, made[2])  # which a worker has: it is told by the row
    assert queued(service) == [made[2], made[3]]


def test_a_full_queue_says_when_to_come_again(service: Service) -> None:
    jobs.create(service, service.local, BALL, Ticket(count=8))
    with pytest.raises(ApiError) as raised:
        jobs.create(service, service.local, BALL, Ticket(count=8))
    assert raised.value.status == 429 and 1 <= int(raised.value.headers["Retry-After"]) <= 60


def test_a_months_allowance(shared: Service) -> None:
    user = someone(shared, "free")  # 300 s a month, 10 at a time
    made = [jobs.create(shared, user, BALL.model_copy(update={"seconds": 10}))[0] for _ in range(10)]
    for job in made:
        jobs.delete(shared, user, job.id)  # what was not made costs nothing
    assert jobs.cost(shared, user, BALL)["allowance_left"] == 300
    for _ in range(30):
        name = jobs.create(shared, user, BALL.model_copy(update={"seconds": 10}))[0].id
        run = begin(shared, name, "worker")
        assert run is not None and run.finish({}, {})
    with pytest.raises(ApiError) as raised:
        jobs.create(shared, user, BALL)
    assert (raised.value.code, raised.value.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert not jobs.cost(shared, user, BALL)["allowed"]


@pytest.mark.parametrize(
    "order",
    [BALL.model_copy(update={"enhance": "1920x1080"}), BALL.model_copy(update={"seconds": 30.0})],
)
def test_a_plan_has_limits(shared: Service, order: Order) -> None:
    with pytest.raises(ApiError, match="the plan free"):
        jobs.create(shared, someone(shared, "free"), order)


def test_a_resolution_far_above_what_was_trained_is_enlarged(service: Service) -> None:
    order = BALL.model_copy(update={"resolution": "200p", "aspect": "2:1"})
    job = jobs.create(service, service.local, order)[0]
    assert (job.order["resolution"], job.order["enhance"], job.width, job.height) == (None, "200p", 400, 200)
    assert jobs.cost(service, service.local, order)["size"] == "400x200"
    native = BALL.model_copy(update={"resolution": "64p"})
    made = jobs.create(service, service.local, native)[0]
    assert (made.order["resolution"], made.order["enhance"], made.width, made.height) == ("64p", None, 64, 64)
    for given in ({"resolution": "200p", "enhance": "100p"}, {"resolution": "huge"}):
        with pytest.raises(ApiError):
            jobs.create(service, service.local, BALL.model_copy(update=given | {"size": "64x64"}))


def test_nobody_finds_anothers(shared: Service) -> None:
    one, two = someone(shared), someone(shared, name="two")
    name = jobs.create(shared, one, BALL)[0].id
    for call in (jobs.cancel, jobs.delete):
        with pytest.raises(ApiError) as raised:
            call(shared, two, name)
        assert raised.value.status == 404
    with pytest.raises(ApiError) as raised:
        jobs.create(shared, two, Order(way="remix", prompt="x", clip=name))
    assert raised.value.status == 404


def test_what_is_not_made_yet_cannot_be_remixed(service: Service) -> None:
    name = jobs.create(service, service.local, BALL)[0].id
    with pytest.raises(ApiError) as raised:
        jobs.create(service, service.local, Order(way="remix", prompt="x", clip=name))
    assert raised.value.code == "video_not_ready"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order(), "empty"),
        (Order(way="remix", prompt="x"), "needs clip"),
        (Order(way="generate", prompt="x", clip="video_" + "0" * 32), "takes no clip"),
        (Order(prompt="x", size="100x100"), "multiple"),
        (Order(prompt="x", size="64x64", aspect="1:1"), "not both"),
        (Order(prompt="x", solver="magic"), "unknown solver"),
        (Order(prompt="x", preset="magic"), "preset"),
        (Order(prompt="x", model="magic"), "no model"),
        (Order(way="storyboard", cards=(Card(at=0),)), "shows nothing"),
        (Order(way="storyboard", cards=(Card(at=1, prompt="a"), Card(at=1, prompt="b"))), "same time"),
        (Order(prompt="x", enhance="9999999p"), "resolution"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(service: Service, order: Order, said: str) -> None:
    with pytest.raises(Exception, match=said):
        jobs.create(service, service.local, order)
    assert queued(service) == []


def test_only_the_latest_run_counts(service: Service) -> None:
    """A worker that was taken for dead, and was not."""
    name = jobs.create(service, service.local, BALL)[0].id
    zombie = begin(service, name, "one")
    run = begin(service, name, "two")
    assert zombie is not None and run is not None
    assert zombie.state() == "" and not zombie.finish({}, {}) and not zombie.fail("x", "x")
    assert run.finish({"video": {"key": "k", "type": "video/mp4", "bytes": 1}}, {"seconds": 2.0})
    job = look(service, name)
    assert (job.status, job.progress, job.seconds, job.attempt) == (COMPLETED, 100, 2.0, 2)


def test_progress_never_goes_backwards(service: Service) -> None:
    name = jobs.create(service, service.local, BALL)[0].id
    run = begin(service, name, "one")
    assert run is not None
    run.report("generate", 0.6, always=True)
    again = begin(service, name, "two")
    assert again is not None
    again.report("generate", 0.2, always=True)
    job = look(service, name)
    assert (job.stage, job.progress) == ("generate", 60)


def test_a_job_that_loses_worker_after_worker_fails(service: Service) -> None:
    name = jobs.create(service, service.local, BALL)[0].id
    for number in range(service.settings.attempts + 1):
        begin(service, name, f"worker {number}")
    job = look(service, name)
    assert (job.status, job.error_code) == (FAILED, "worker_lost")


def test_a_job_that_is_handed_back_has_lost_nobody(service: Service) -> None:
    """A service that is restarted again and again still makes what it has begun."""
    name = jobs.create(service, service.local, BALL)[0].id
    for number in range(2 * service.settings.attempts):
        begin(service, name, f"worker {number}")
        with service.database.writing() as session:
            hand_back(session, "somebody else")
            hand_back(session, f"worker {number}")
    assert look(service, name).lost == 0
    begin(service, name, "worker")
    run = begin(service, name, "another")
    assert run is not None and look(service, name).lost == 1
    assert run.finish({}, {}) and look(service, name).attempt == 2 * service.settings.attempts + 2


@pytest.mark.parametrize("deleted", ["source", "upload"])
def test_the_same_key_gives_the_first_answer_though_its_source_is_gone(
    local: TestClient, service: Service, tmp_path: Path, deleted: str
) -> None:
    Clip(np.zeros((5, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "black.mp4")
    data = (tmp_path / "black.mp4").read_bytes()
    source = jobs.create(service, service.local, BALL)[0].id
    run = begin(service, source, "worker")
    key = f"{service.folder}/videos/{source}/1-video.mp4"
    assert run is not None
    assert run.finish({"video": {"key": key, "type": "video/mp4", "bytes": service.storage.put(key, data)}}, {})
    once = {"Idempotency-Key": "k"}
    ways = [
        lambda: local.post(f"/v1/videos/{source}/remix", json={"prompt": "a blue ball"}, headers=once),
        lambda: local.post("/v1/videos/characters", json={"name": "Ball", "video": {"id": source}}, headers=once),
        lambda: local.post(
            "/api/videos", json={"way": "remix", "prompt": "x", "clip": source}, headers={"Idempotency-Key": "a"}
        ),
    ]
    if deleted == "upload":
        files = {"video": ("x.mp4", data, "video/mp4")}
        ways = [lambda: local.post("/v1/videos/edits", data={"prompt": "x"}, files=files, headers=once)]
    first = [way() for way in ways]
    assert all(answer.is_success for answer in first), [answer.text for answer in first]
    if deleted == "source":
        jobs.delete(service, service.local, source)
    else:
        assert len(list(service.storage.keys(f"{service.folder}/uploads"))) == 1
    assert [way().json() for way in ways] == [answer.json() for answer in first]
    assert len(list(service.storage.keys(f"{service.folder}/uploads"))) == (deleted == "upload")  # not sent once more
    other = local.post("/v1/videos/characters", json={"name": "Box", "video": {"id": source}}, headers=once)
    assert deleted == "upload" or other.json()["error"]["code"] == "idempotency_key_reused"


def test_what_was_sent_with_a_bad_order_is_not_kept(local: TestClient, service: Service, tmp_path: Path) -> None:
    Clip(np.zeros((1, 64, 64, 3), np.uint8), 1.0).write(tmp_path / "black.png")
    files = {"input_reference": ("x.png", (tmp_path / "black.png").read_bytes(), "image/png")}
    answer = local.post("/v1/videos", data={"prompt": "x", "seconds": "-1"}, files=files)
    assert answer.status_code == 400 and list(service.storage.keys()) == []
    with service.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Upload)) == 0


def test_a_key_that_comes_again_keeps_no_second_picture(local: TestClient, service: Service, tmp_path: Path) -> None:
    Clip(np.zeros((1, 32, 32, 3), np.uint8), 8.0).write(tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    user, order = service.local, Order(way="animate", prompt="a ball", seconds=1)
    for _ in range(2):  # past the first look for the key, as two at the same moment are
        with _upload(
            service, user, {"image_url": f"data:image/png;base64,{base64.b64encode(picture).decode()}"}, "x"
        ) as up:
            jobs.create(service, user, order.model_copy(update={"image": up.id, "seed": 1}), Ticket(key="one"))
    with service.database.reading() as session:
        (kept,) = session.scalars(sa.select(Upload))
        (job,) = session.scalars(sa.select(Job))
    assert job.order["image"] == kept.id and [*service.storage.keys()] == [kept.key]
    assert local.delete(f"/api/uploads/{kept.id}").status_code == 409  # a video waits for it
    jobs.delete(service, user, job.id)
    assert local.delete(f"/api/uploads/{kept.id}").status_code == 204 and not [*service.storage.keys()]
    assert local.delete(f"/api/uploads/{kept.id}").status_code == 404


def test_this_api_has_its_own_names_for_what_is_given(local: TestClient, service: Service) -> None:
    source = jobs.create(service, service.local, BALL)[0].id
    error = local.post(f"/v1/videos/{source}/remix", json={"prompt": "x"}).json()["error"]
    assert (error["param"], error["code"]) == ("video", "video_not_ready")


def test_an_upload_that_is_too_long_is_told_at_once(web: TestClient, shared: Service, tmp_path: Path) -> None:
    """As its file says; what it has besides comes out when it is read."""
    user = someone(shared, "free")
    web.headers["Authorization"] = f"Bearer {create_key(shared.database, user.id)[0]}"
    Clip(np.zeros((90, 16, 16, 3), np.uint8), 8.0).write(tmp_path / "long.mp4")
    data = (tmp_path / "long.mp4").read_bytes()
    form = {"prompt": "it rolls", "seconds": "4"}
    answer = web.post("/v1/videos/edits", data={"prompt": "x"}, files={"video": ("x.mp4", data, "video/mp4")})
    assert answer.status_code == 400 and "the plan free allows: 10 s" in answer.json()["error"]["message"]
    Clip(np.zeros((40, 16, 16, 3), np.uint8), 8.0).write(tmp_path / "short.mp4")
    data = (tmp_path / "short.mp4").read_bytes()
    edited = web.post("/v1/videos/edits", data={"prompt": "x"}, files={"video": ("x.mp4", data, "video/mp4")})
    extended = web.post("/v1/videos/extensions", data=form, files={"video": ("x.mp4", data, "video/mp4")})
    assert (edited.json()["seconds"], extended.json()["seconds"]) == ("5", "9")
    form["seconds"] = "8"
    late = web.post("/v1/videos/extensions", data=form, files={"video": ("x.mp4", data, "video/mp4")})
    assert late.status_code == 400 and late.json()["error"]["param"] == "seconds"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a ball", "seconds": 1e-9}, "seconds"),
        ({"prompt": "a ball", "size": "8192x8192"}, "size"),
        ({"prompt": "a ball", "aspect": "wide"}, "aspect"),
        ({"prompt": "a ball", "steps": 100000}, "steps"),
        ({"prompt": "a ball", "solver": "magic"}, "solver"),
        ({"prompt": "a ball", "preset": "nobody's"}, "preset"),
        ({"prompt": "a ball", "strength": "very"}, "strength"),
        ({"prompt": "a ball", "enhance": "large"}, "enhance"),
    ],
)
def test_what_is_wrong_is_named(local: TestClient, asked: dict, param: str) -> None:
    for path in ("/v1/videos", "/api/videos"):
        answer = local.post(path, json=asked)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_a_blend_is_as_long_as_the_longer_clip(local: TestClient, service: Service, tmp_path: Path) -> None:
    files = []
    for frames in (8, 12):
        path = tmp_path / f"{frames}.mp4"
        Clip(np.zeros((frames, 16, 16, 3), np.uint8), 8.0).write(path)
        answer = local.post("/api/uploads", files={"file": (path.name, path.read_bytes(), "video/mp4")})
        files.append(answer.json()["id"])
    order = Order(way="blend", clip=files[0], other=files[1])
    assert jobs.cost(service, service.local, order)["seconds"] == 1.5
    assert jobs.cost(service, service.local, order.model_copy(update={"seconds": 3.0}))["seconds"] == 3.0


def test_what_is_recut_is_as_long_as_what_is_kept(service: Service) -> None:
    native = service.native(service.settings.model)
    order = Order(way="recut", clip="video_" + "0" * 32, keep=((0, 0.4), (0.6, 0.9)))
    assert expected(order, native)[1] == 0.9
    assert expected(order.model_copy(update={"to": 1.5}), native)[1] == 1.5


def test_a_preview_goes_with_the_making(service: Service) -> None:
    name = jobs.create(service, service.local, BALL)[0].id
    run = begin(service, name, "worker")
    assert run is not None
    run.show(1, b"jpeg")
    jobs.cancel(service, service.local, name)
    run.show(2, b"jpeg")
    with service.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Preview)) == 0
