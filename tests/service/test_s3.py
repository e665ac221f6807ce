"""The service on a bucket of a real S3 server: what is put there, handed out of it and removed from it, by processes
that share nothing else but a database."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import postgres
import processes
import pytest
import s3
from serving import missing

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.serve.context import Service, open_service
from yozora.serve.housekeeping import expire, orphans, remove_orphans
from yozora.serve.settings import read_settings
from yozora.serve.storage import CHUNK, Storage, StorageError
from yozora.serve.tables import Job


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    binary = s3.find_binary()
    if binary is None:
        missing("SeaweedFS")
    else:
        with s3.running(binary) as running, pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in running.environment.items():
                patch.setenv(name, value)
            yield running


def test_a_bucket_is_a_storage(server: s3.Server, tmp_path: Path) -> None:
    storage = Storage(f"s3://{s3.BUCKET}/some/prefix")
    storage.check()
    beside = Storage(f"s3://{s3.BUCKET}")
    beside.put("some/prefix-of-another/file", b"not ours")
    data = bytes(range(256)) * (12 * 2**20 // 256)  # more than is sent in one request
    (tmp_path / "given").write_bytes(data)
    assert storage.put("videos/a/1.mp4", tmp_path / "given") == len(data)
    storage.fetch("videos/a/1.mp4", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert b"".join(storage.read("videos/a/1.mp4", CHUNK - 3, 3 * CHUNK + 5)) == data[CHUNK - 3 : 3 * CHUNK + 5]
    storage.put("videos/a/ü b+c%20.txt", b"odd")
    assert sorted(storage.keys("videos")) == ["videos/a/1.mp4", "videos/a/ü b+c%20.txt"]
    assert list(storage.keys("videos", older_than=60)) == [] and list(storage.keys("video")) == []
    storage.delete([*storage.keys(), "videos/none"])
    assert list(storage.keys()) == [] and list(beside.keys()) == ["some/prefix-of-another/file"]
    for call in (lambda: list(storage.read("videos/none", 0, 1)), lambda: storage.fetch("none", tmp_path / "none")):
        with pytest.raises(StorageError, match="NoSuchKey"):
            call()
    assert not (tmp_path / "none").exists()


def test_what_is_wrong_with_a_bucket_is_said_in_a_line(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^s3://nobody/x cannot be used for files: NoSuchBucket: [^\n]*$"):
        Storage("s3://nobody/x").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ConfigError, match="SignatureDoesNotMatch"):
        Storage(f"s3://{s3.BUCKET}").check()
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        Storage(f"s3://{s3.BUCKET}").put("x", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{postgres.free_port()}")
    with pytest.raises(ConfigError, match="error sending request"):
        Storage(f"s3://{s3.BUCKET}").check()


@pytest.fixture(scope="module")
def place(
    server: s3.Server, postgres_server: postgres.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A database and a place in the bucket."""
    url, data = postgres_server.database("buckets"), tmp_path_factory.mktemp("own")
    service = open_service(read_settings(data=data, database_url=url, storage=f"s3://{s3.BUCKET}/yozora"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(place: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a server without a worker; a worker is elsewhere."""
    shared = ["--database-url", place.settings.database_url, "--storage", place.settings.storage]
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    serve = ["serve", "--workers", "0", "--port", "0", "--data", str(one), *shared]
    with (
        processes.running(*serve, log=one / "log.txt") as process,
        processes.running("worker", "--data", str(two), *shared, log=two / "log.txt"),
        httpx2.Client(base_url=processes.address(process), timeout=60) as client,
    ):
        yield client


def finished(client: httpx2.Client, answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    video, end = answer.json(), time.monotonic() + 120
    while video["status"] in ("queued", "in_progress"):
        assert time.monotonic() < end, video
        time.sleep(0.1)
        video = client.get(f"/v1/videos/{video['id']}").json()
    assert video["status"] == "completed", video
    return video


def test_the_service_on_a_bucket(client: httpx2.Client, place: Service) -> None:
    quick = {"seconds": "0.1", "steps": "1", "seed": "3"}
    video = finished(client, client.post("/v1/videos", json={"prompt": "a red ball", "size": "512x512"} | quick))
    path = f"/v1/videos/{video['id']}/content"
    whole = client.get(path)
    assert whole.status_code == 200 and whole.content[4:8] == b"ftyp"
    part = client.get(path, headers={"Range": "bytes=100-1099"})
    assert (part.status_code, part.content) == (206, whole.content[100:1100])
    assert part.headers["content-range"] == f"bytes 100-1099/{len(whole.content)}"
    tail = client.get(path, headers={"Range": "bytes=-10"})
    assert tail.content == whole.content[-10:]
    assert client.get(path, headers={"Range": "bytes=99999999-"}).status_code == 416
    thumbnail = client.get(path, params={"variant": "thumbnail"}).content
    assert thumbnail[8:12] == b"WEBP" and client.get(path, params={"variant": "spritesheet"}).content[:2] == b"\xff\xd8"
    # a picture that is sent, and a video of the bucket, to make others from
    form = {"prompt": "it rolls"} | quick
    files = {"input_reference": ("x.webp", thumbnail, "image/webp")}
    animated = finished(client, client.post("/v1/videos", data=form, files=files))
    remixed = finished(
        client, client.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a blue ball", "steps": 1})
    )
    keys = set(place.storage.keys())
    assert {key.split("/")[0] for key in keys} == {place.folder} and len(keys) == 10 and not list(orphans(place, 0))
    # deleted, expired, orphaned: nothing of it stays, and nothing else goes
    assert client.delete(f"/v1/videos/{remixed['id']}").json()["deleted"]
    assert client.get(f"/v1/videos/{remixed['id']}/content").status_code == 404
    with place.database.writing() as session:
        job = session.get(Job, animated["id"])
        assert job is not None
        job.expires_at = 1.0
    lost = f"{place.folder}/videos/video_{'1' * 32}/1-video.mp4"
    place.storage.put(lost, b"x")
    expire(place)
    assert list(orphans(place, 0)) == [lost] and remove_orphans(place) == 0  # it is too young
    place.storage.delete([lost])
    folders = {key.rsplit("/", 1)[0] for key in list(place.storage.keys())}
    assert folders == {f"{place.folder}/videos/{video['id']}", f"{place.folder}/uploads"}
    assert client.get(f"/v1/videos/{animated['id']}/content").status_code == 404


def test_a_bucket_that_is_away_for_a_while(client: httpx2.Client, server: s3.Server, tmp_path: Path) -> None:
    Clip(np.zeros((1, 64, 64, 3), np.uint8), 1.0).write(tmp_path / "black.png")
    files = {"file": ("black.png", (tmp_path / "black.png").read_bytes(), "image/png")}
    assert client.post("/api/uploads", files=files).status_code == 201
    server.stop()
    try:
        answer = client.post("/api/uploads", files=files)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
        assert answer.headers["retry-after"]
        assert client.get("/v1/videos").status_code == 200
    finally:
        server.start()
    assert client.post("/api/uploads", files=files).status_code == 201
