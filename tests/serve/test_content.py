from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from yozora.serve import jobs
from yozora.serve.context import Service
from yozora.serve.orders import Order
from yozora.serve.runs import begin

DATA = bytes(range(200))


@pytest.fixture
def path(service: Service) -> str:
    """Where the file of a finished video is."""
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    key = f"videos/{name}/1-video.mp4"
    service.storage.put(key, DATA)
    run = begin(service, name, "worker")
    assert run is not None and run.finish({"video": {"key": key, "type": "video/mp4", "bytes": len(DATA)}}, {})
    return f"/v1/videos/{name}/content"


@pytest.mark.parametrize(
    ("asked", "status", "sent", "said"),
    [
        ("bytes=0-9", 206, DATA[:10], "bytes 0-9/200"),
        ("bytes=190-", 206, DATA[190:], "bytes 190-199/200"),
        ("bytes=-5", 206, DATA[-5:], "bytes 195-199/200"),
        ("bytes=-500", 206, DATA, "bytes 0-199/200"),
        ("bytes=100-9999", 206, DATA[100:], "bytes 100-199/200"),
        ("bytes=200-", 416, None, "bytes */200"),
        ("bytes=-0", 416, None, "bytes */200"),
        ("bytes=9-1", 200, DATA, None),
        ("bytes=0-1,4-5", 200, DATA, None),
        ("lines=1-2", 200, DATA, None),
        ("bytes=" + "9" * 40 + "-", 200, DATA, None),
    ],
)
def test_ranges(local: TestClient, path: str, asked: str, status: int, sent: bytes | None, said: str | None) -> None:
    answer = local.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("content-range")) == (status, said)
    if sent is None:
        assert answer.json()["error"]["code"] == "range_not_satisfiable"
    else:
        assert answer.content == sent and answer.headers["content-length"] == str(len(sent))


def test_what_one_has_is_not_sent_again(local: TestClient, path: str) -> None:
    tag = local.get(path).headers["etag"]
    assert local.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert local.get(path, headers={"Range": "bytes=0-1", "If-Range": tag}).status_code == 206
    assert local.get(path, headers={"Range": "bytes=0-1", "If-Range": '"old"'}).status_code == 200


def test_what_is_not_there(local: TestClient, path: str, service: Service) -> None:
    assert local.get(path, params={"variant": "thumbnail"}).status_code == 404
    assert local.get(path, params={"variant": "audio"}).status_code == 400
    waiting = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    answer = local.get(f"/v1/videos/{waiting}/content")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")


def test_what_there_is_can_be_asked_without_fetching_it(local: TestClient, path: str) -> None:
    for address in (path, path.replace("/v1/", "/api/")):
        answer = local.head(address)
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "200", b"")
        assert answer.headers["content-type"] == "video/mp4"


def test_a_file_that_cannot_be_read_is_an_error_before_any_header(
    local: TestClient, path: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> bytes:
        raise OSError("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr("yozora.serve.storage.obstore.get_range", down)
        for address in (path, path.replace("/v1/", "/api/")):
            answer = local.get(address)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    service.storage.delete(list(service.storage.keys()))
    for address in (path, path.replace("/v1/", "/api/")):
        answer = local.get(address)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
