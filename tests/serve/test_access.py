"""Who may do what: single-user mode, keys, sessions, roles, and what is whose."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from yozora.serve import jobs
from yozora.serve.accounts import User, create_account, create_key
from yozora.serve.context import Service
from yozora.serve.housekeeping import expire
from yozora.serve.orders import Order
from yozora.serve.runs import begin
from yozora.serve.tables import Account, Job, Mark

BALL = Order(prompt="a red ball", seconds=1)


def someone(service: Service, name: str, role: str = "user") -> tuple[User, dict[str, str]]:
    """A user and the header with their key."""
    user = create_account(service.database, f"{name}@example.org", None, 1990, role, "pro")
    return user, {"Authorization": f"Bearer {create_key(service.database, user.id)[0]}"}


def made(service: Service, user: User, tmp_path: Path) -> str:
    """A finished video of somebody's, with a file."""
    name = jobs.create(service, user, BALL)[0].id
    run = begin(service, name, "worker")
    key = f"videos/{name}/1-video.mp4"
    assert run is not None and service.storage.put(key, b"0123456789") == 10
    assert run.finish({"video": {"key": key, "type": "video/mp4", "bytes": 10}}, {})
    return name


def test_the_single_user_needs_no_key(local: TestClient) -> None:
    assert local.get("/v1/videos").json()["data"] == []
    account = local.get("/api/account", headers={"Authorization": "Bearer whatever"}).json()
    assert account["single_user"] and account["role"] == "admin"


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.evil.org:8000", "evil.org:80", ""])
def test_the_single_user_mode_hears_this_machine_only(local: TestClient, host: str) -> None:
    """A name that was made to mean 127.0.0.1 is another host's page."""
    assert local.get("/v1/videos", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"])
def test_this_machine_by_its_names(local: TestClient, host: str) -> None:
    assert local.get("/v1/videos", headers={"Host": host}).status_code == 200


def test_pages_of_others_may_not_order(local: TestClient) -> None:
    order = {"prompt": "a red ball"}
    assert local.post("/api/videos", json=order, headers={"Origin": "https://evil.example.org"}).status_code == 403
    assert local.post("/api/videos", json=order, headers={"Origin": "null"}).status_code == 403
    assert local.post("/api/videos", json=order, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 201


def test_signing_up_is_for_services_with_accounts(local: TestClient) -> None:
    form = {"email": "a@example.org", "password": "long enough", "birth_year": 1990}
    assert local.post("/api/sign-up", json=form).status_code == 403


def test_signing_up_in_and_out(web: TestClient) -> None:
    form = {"email": "a@example.org", "password": "long enough", "birth_year": 1990}
    assert web.get("/api/account").status_code == 401
    assert web.post("/api/sign-up", json=form).json()["plan"] == "free"
    assert web.get("/api/account").json()["email"] == "a@example.org"
    own = {"Origin": "http://videos.example.org"}
    assert web.post("/api/keys", json={"name": "k"}, headers={"Origin": "http://evil.org"}).status_code == 403
    key = web.post("/api/keys", json={"name": "k"}, headers=own).json()["key"]
    web.post("/api/sign-out")
    assert web.get("/api/account").status_code == 401
    assert web.get("/api/account", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert web.post("/api/sign-in", json={"email": "a@example.org", "password": "wrong"}).status_code == 401
    assert web.post("/api/sign-in", json={"email": "a@example.org", "password": "long enough"}).status_code == 200
    assert web.get("/api/account").json()["plan"]["name"] == "free"


def test_the_young_are_refused(web: TestClient) -> None:
    form = {"email": "a@example.org", "password": "long enough", "birth_year": 2012}
    answer = web.post("/api/sign-up", json=form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "under_age")


def test_nobody_sees_anothers_private_work(web: TestClient, shared: Service, tmp_path: Path) -> None:
    (one, own), (_, other) = someone(shared, "one"), someone(shared, "two")
    name = made(shared, one, tmp_path)
    paths = [f"/v1/videos/{name}", f"/v1/videos/{name}/content", f"/api/videos/{name}", f"/api/videos/{name}/content"]
    paths += [f"/api/videos/{name}/lineage", f"/api/videos/{name}/events"]
    for path in paths:
        assert web.get(path).status_code == 401
        hidden = web.get(path, headers=other)
        never = web.get(path.replace(name, "video_" + "0" * 32), headers=other)
        assert hidden.status_code == never.status_code == 404
        assert hidden.json()["error"]["code"] == never.json()["error"]["code"]
        assert web.get(path, headers=own).status_code == 200
    for method, path in (("DELETE", f"/v1/videos/{name}"), ("POST", f"/v1/videos/{name}/remix"),
                         ("POST", f"/api/videos/{name}/cancel"), ("PUT", f"/api/videos/{name}/favourite")):  # fmt: skip
        assert web.request(method, path, headers=other, json={"prompt": "x"}).status_code == 404
    assert web.get("/v1/videos", headers=other).json()["data"] == []


def test_public_videos_are_seen_and_not_changed(web: TestClient, shared: Service, tmp_path: Path) -> None:
    (one, own), (_, other) = someone(shared, "one"), someone(shared, "two")
    name = made(shared, one, tmp_path)
    assert web.patch(f"/api/videos/{name}", json={"public": True}, headers=own).json()["public"]
    shown = web.get(f"/api/videos/{name}", headers=other).json()
    assert shown["prompt"] == "a red ball" and not {"order", "recipe", "error", "folder"} & shown.keys()
    assert web.get(f"/api/videos/{name}/content", headers=other).content == b"0123456789"
    assert web.get(f"/v1/videos/{name}", headers=other).status_code == 404  # that API has no public videos
    assert web.delete(f"/api/videos/{name}", headers=other).status_code == 404
    assert web.patch(f"/api/videos/{name}", json={"public": False}, headers=other).status_code == 404
    assert [each["id"] for each in web.get("/api/feeds/recent", headers=other).json()["videos"]] == [name]


def test_anothers_public_video_is_among_ones_favourites(web: TestClient, shared: Service, tmp_path: Path) -> None:
    (one, own), (_, other) = someone(shared, "one"), someone(shared, "two")
    name = made(shared, one, tmp_path)
    web.patch(f"/api/videos/{name}", json={"public": True}, headers=own)
    assert web.put(f"/api/videos/{name}/favourite", headers=other).status_code == 204

    def liked() -> list[dict[str, Any]]:
        return web.get("/api/videos", params={"favourite": True}, headers=other).json()["videos"]

    assert [each["id"] for each in liked()] == [name]
    assert not {"order", "recipe", "error", "folder"} & liked()[0].keys()
    web.patch(f"/api/videos/{name}", json={"public": False}, headers=own)
    assert liked() == []  # and it is nobody else's business again


def test_lists_go_on_from_what_is_not_in_them_any_more(web: TestClient, shared: Service, tmp_path: Path) -> None:
    (one, own), (_, other) = someone(shared, "one"), someone(shared, "two")
    first, second, third, fourth = (made(shared, one, tmp_path) for _ in range(4))
    for name in (first, second, third):
        web.patch(f"/api/videos/{name}", json={"public": True}, headers=own)

    def names(path: str, after: str, headers: dict[str, str]) -> list[str]:
        answer = web.get(path, params={"after": after}, headers=headers)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json().get("videos") or answer.json()["data"]]

    web.patch(f"/api/videos/{third}", json={"public": False}, headers=own)
    assert names("/api/feeds/recent", third, other) == [second, first]
    assert web.delete(f"/v1/videos/{third}", headers=own).status_code == 200
    assert web.delete(f"/v1/videos/{fourth}", headers=own).status_code == 200
    assert names("/api/feeds/recent", third, other) == [second, first]
    for path in ("/v1/videos", "/api/videos"):
        assert names(path, fourth, own) == names(path, third, own) == [second, first]
        hidden = web.get(path, params={"after": fourth}, headers=other)  # which was nobody else's to see
        assert hidden.status_code == 404
    assert web.get("/api/feeds/recent", params={"after": fourth}, headers=other).status_code == 404
    with shared.database.writing() as session:
        session.execute(sa.update(Mark).values(since=0.0))
    expire(shared)
    assert web.get("/v1/videos", params={"after": fourth}, headers=own).status_code == 404


def test_roles(web: TestClient, shared: Service, tmp_path: Path) -> None:
    (one, own), (_, reviewer), (boss, admin) = (
        someone(shared, "one"), someone(shared, "two", "reviewer"), someone(shared, "three", "admin")
    )  # fmt: skip
    name = made(shared, one, tmp_path)
    web.patch(f"/api/videos/{name}", json={"public": True}, headers=own)
    feature = {"featured": True}
    assert web.patch(f"/api/admin/videos/{name}", json=feature, headers=own).status_code == 403
    assert web.patch(f"/api/admin/videos/{name}", json=feature, headers=reviewer).json()["featured"]
    assert len(web.get("/api/feeds/featured", headers=own).json()["videos"]) == 1
    for path in ("accounts", "workers", "queue"):
        assert web.get(f"/api/admin/{path}", headers=reviewer).status_code == 403
        assert web.get(f"/api/admin/{path}", headers=admin).status_code == 200
    change = {"plan": "plus", "disabled": True}
    assert web.patch(f"/api/admin/accounts/{one.id}", json=change, headers=admin).json()["plan"] == "plus"
    assert web.get("/api/account", headers=own).status_code == 401
    assert web.patch(f"/api/admin/accounts/{boss.id}", json={"role": "user"}, headers=admin).status_code == 400
    assert web.patch(f"/api/admin/accounts/{one.id}", json={"role": "god"}, headers=admin).status_code == 400


def test_an_expired_video_stays_in_the_library(web: TestClient, shared: Service, tmp_path: Path) -> None:
    user, own = someone(shared, "one")
    with shared.database.writing() as session:
        account = session.get(Account, user.id)
        assert account is not None
        account.plan = "plus"
    name = made(shared, user, tmp_path)
    expires = web.get(f"/v1/videos/{name}", headers=own).json()["expires_at"]
    assert 364 * 86400 < expires - time.time() < 366 * 86400
    with shared.database.writing() as session:
        job = session.get(Job, name)
        assert job is not None
        job.expires_at = time.time() - 1
    expire(shared)
    assert web.get(f"/v1/videos/{name}", headers=own).json()["status"] == "completed"
    assert web.get(f"/v1/videos/{name}/content", headers=own).status_code == 404
    assert list(shared.storage.keys()) == []
