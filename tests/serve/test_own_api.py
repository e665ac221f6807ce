"""Yozora's own API, without a worker: ordering in every way, library, folders, favourites, lineage."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy.exc import OperationalError

from yozora.clip import Clip
from yozora.serve import create_api, jobs, uploads
from yozora.serve.context import Service
from yozora.serve.orders import GIVEN, Order
from yozora.serve.runs import begin
from yozora.serve.storage import StorageError
from yozora.serve.tables import Job, WorkerRow


@pytest.fixture
def sent(local: TestClient, tmp_path: Path) -> str:
    """The id of a clip that was uploaded."""
    frames = np.zeros((5, 64, 64, 3), np.uint8)
    Clip(frames, 8.0).write(tmp_path / "clip.mp4")
    with (tmp_path / "clip.mp4").open("rb") as file:
        answer = local.post("/api/uploads", files={"file": ("../../../etc/passwd", file)})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["width"], answer.json()["height"]) == (64, 64)
    return answer.json()["id"]


def test_every_way_can_be_ordered(local: TestClient, sent: str) -> None:
    given: dict[str, Any] = {
        "image": sent, "clip": sent, "other": sent, "mask": sent, "keep": [[0, 0.2], [0.4, 0.5]],
        "cards": [{"at": 0, "source": sent}, {"at": 2, "source": sent, "prompt": "it rolls"}],
    }  # fmt: skip
    for way, needed in GIVEN.items():
        body = {
            "way": way,
            "prompt": "a red ball",
            "steps": 2,
            **{name: given[name] for name in needed if name in given},
        }
        answer = local.post("/api/videos", json=body)
        assert answer.status_code == 201, f"{way}: {answer.text}"
        assert answer.json()["videos"][0]["way"] == way


def test_cost_orders_nothing(local: TestClient) -> None:
    body = {"prompt": "a red ball", "seconds": 2, "variations": 3, "enhance": "256x256"}
    cost = local.post("/api/videos/cost", json=body).json()
    assert (cost["seconds"], cost["size"], cost["allowed"]) == (6, "256x256", True)
    assert local.get("/api/videos").json()["videos"] == []


def test_library(local: TestClient, service: Service) -> None:
    ids = [local.post("/api/videos", json={"prompt": f"ball {n} 100%"}).json()["videos"][0]["id"] for n in range(4)]
    folder = local.post("/api/folders", json={"name": "Good ones"}).json()["id"]
    assert local.patch(f"/api/videos/{ids[0]}", json={"folder": folder}).json()["folder"] == folder
    assert local.patch(f"/api/videos/{ids[0]}", json={"folder": "folder_none"}).status_code == 404

    def listed(**query: Any) -> list[str]:
        return [video["id"] for video in local.get("/api/videos", params=query).json()["videos"]]

    assert listed() == ids[::-1] and listed(limit=2, after=ids[2]) == ids[1::-1]
    assert listed(folder=folder) == [ids[0]] and listed(text="BALL 2") == [ids[2]] and listed(text="100%") == ids[::-1]
    assert listed(text="_") == []  # not a pattern
    assert local.put(f"/api/videos/{ids[1]}/favourite").status_code == 204
    assert local.put(f"/api/videos/{ids[1]}/favourite").status_code == 204
    assert listed(favourite=True) == [ids[1]] and local.get(f"/api/videos/{ids[1]}").json()["favourite"]
    local.delete(f"/api/videos/{ids[1]}/favourite")
    assert listed(favourite=True) == []
    assert local.post(f"/api/videos/{ids[3]}/cancel").json()["status"] == "cancelled"
    assert local.post(f"/api/videos/{ids[3]}/cancel").status_code == 409
    assert listed(status="cancelled") == [ids[3]]
    assert local.get(f"/v1/videos/{ids[3]}").json()["error"]["code"] == "cancelled"
    assert local.get("/api/folders").json()["folders"][0]["videos"] == 1
    assert local.patch(f"/api/folders/{folder}", json={"name": "Best"}).json()["name"] == "Best"
    assert local.delete(f"/api/folders/{folder}").status_code == 204
    assert local.get(f"/api/videos/{ids[0]}").json()["folder"] is None
    assert local.patch(f"/api/videos/{ids[0]}", json={"public": True}).status_code == 409  # not made yet


def test_lineage(local: TestClient, service: Service) -> None:
    first = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    run = begin(service, first, "worker")
    assert run is not None
    assert run.finish({"video": {"key": "k", "type": "video/mp4", "bytes": 1}}, {})
    second = local.post(f"/v1/videos/{first}/remix", json={"prompt": "a blue ball"}).json()
    assert second["remixed_from_video_id"] == first
    assert local.get(f"/api/videos/{second['id']}/lineage").json()["parents"] == [{"id": first, "role": "clip"}]
    children = local.get(f"/api/videos/{first}/lineage").json()["children"]
    assert children == [{"id": second["id"], "role": "clip", "prompt": "a blue ball"}]


def test_events_tell_the_end(local: TestClient, service: Service) -> None:
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    run = begin(service, name, "worker")
    assert run is not None
    run.report("generate", 0.5, always=True)
    assert run.fail("server_error", "it went wrong")
    told = [block.split("\n", 1) for block in local.get(f"/api/videos/{name}/events").text.strip().split("\n\n")]
    assert [kind for kind, _ in told] == ["event: progress", "event: done"]
    last = json.loads(told[-1][1].removeprefix("data: "))
    assert (last["status"], last["error"], last["progress"]) == ("failed", "it went wrong", 50)


def test_events_show_what_a_video_looks_like_by_now(
    local: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1, previews=True))[0].id
    run = begin(service, name, "worker")
    assert run is not None
    run.report("generate", 0.3, always=True)
    run.show(3, b"a jpeg")
    newer = create_api._preview

    def newer_until_seen(service: Service, video_id: str, step: int) -> Any:
        if step == 3:  # the stream has sent it
            run.fail("server_error", "it broke")
        return newer(service, video_id, step)

    monkeypatch.setattr(create_api, "_preview", newer_until_seen)
    came = [part.split("\n") for part in local.get(f"/api/videos/{name}/events").text.strip().split("\n\n")]
    told = [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in came]
    assert [kind for kind, _ in told] == ["progress", "preview", "progress", "done"]
    assert (told[0][1]["stage"], told[0][1]["progress"]) == ("generate", 30)
    assert told[1][1] == {"step": 3, "jpeg": base64.b64encode(b"a jpeg").decode()}
    assert (told[3][1]["status"], told[3][1]["error"]) == ("failed", "it broke")


@pytest.mark.parametrize(("patience", "told"), [(60.0, ["progress", "progress", "done"]), (0.0, ["progress"])])
def test_events_go_on_after_the_database_was_away(
    local: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, patience: float, told: list[str]
) -> None:
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1, previews=True))[0].id
    run = begin(service, name, "worker")
    assert run is not None
    run.report("generate", 0.3, always=True)
    looks = 0

    def restarted(service: Service, video_id: str, step: int) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise OperationalError("SELECT 1", {}, Exception("the server is starting up"))
        if looks == 3:
            run.fail("server_error", "it broke")

    monkeypatch.setattr(create_api, "_preview", restarted)
    monkeypatch.setattr(create_api, "AWAY", patience)
    came = local.get(f"/api/videos/{name}/events").text.strip().split("\n\n")
    assert [part.split("\n")[0].removeprefix("event: ") for part in came] == told


def test_metrics_tell_what_workers_hold_of_their_gpus(local: TestClient, service: Service) -> None:
    now = time.time()
    about = {"host": "h", "pid": 1, "version": "1", "models": [], "started_at": now, "seen_at": now}
    with service.database.writing() as session:
        session.add(WorkerRow(id="one", device="cuda:0", gpu_bytes=2**33, **about))
        session.add(WorkerRow(id="two", device="cpu", gpu_bytes=None, **about))
        session.add(WorkerRow(id="gone", device="cuda:0", gpu_bytes=2**33, **(about | {"seen_at": now - 3600})))
    text = local.get("/metrics").text
    assert 'yozora_worker_gpu_memory_bytes{device="cuda:0",worker="one"} 8.589934592e+09' in text
    assert "yozora_workers 2.0" in text and text.count("yozora_worker_gpu_memory_bytes{") == 1


def test_words_that_are_no_methods_are_counted_as_one(local: TestClient) -> None:
    for word in ("FETCH", "FETCHTWICE"):
        assert local.request(word, "/v1/videos").status_code in (404, 405)
    text = local.get("/metrics").text
    assert 'method="other"' in text and "FETCH" not in text


def test_what_there_is(local: TestClient) -> None:
    assert any(each["name"] == "film-noir" for each in local.get("/api/presets").json()["presets"])
    assert local.get("/api/models").json()["models"][0]["sizes"] == ["64x64", "96x64"]
    assert local.get("/api/admin/workers").json() == {"workers": []}
    assert local.get("/api/admin/queue").json()["waiting"]["standard"] == 0
    assert local.get("/healthz").json()["ok"] and local.get("/readyz").json()["ok"]
    text = local.get("/metrics").text
    assert 'yozora_queue_depth{lane="standard"} 0.0' in text and "yozora_workers 0.0" in text
    assert "/v1/videos/{video_id}/content" in local.get("/openapi.json").json()["paths"]
    assert local.get("/nowhere").json()["error"]["code"] == "not_found"
    assert local.put("/v1/videos").json()["error"]["code"] == "method_not_allowed"


def test_characters_are_listed_and_removed(local: TestClient, service: Service, tmp_path: Path) -> None:
    Clip(np.zeros((5, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    video = (tmp_path / "clip.mp4").read_bytes()
    made = local.post("/v1/videos/characters", data={"name": "Ball"}, files={"video": ("c.mp4", video)}).json()
    listed = local.get("/api/characters").json()["characters"]
    assert [(each["id"], each["name"]) for each in listed] == [(made["id"], "Ball")]
    assert local.delete(f"/api/characters/{made['id']}").status_code == 204
    assert local.get("/api/characters").json() == {"characters": []} and list(service.storage.keys()) == []
    assert local.delete(f"/api/characters/{made['id']}").status_code == 404


def test_the_same_key_makes_a_character_once(local: TestClient, service: Service, tmp_path: Path) -> None:
    clips = []
    for frames in (5, 9):
        Clip(np.zeros((frames, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
        clips.append((tmp_path / "clip.mp4").read_bytes())

    def make(name: str, clip: bytes, key: str) -> Any:
        form = {"data": {"name": name}, "files": {"video": ("c.mp4", clip)}}
        return local.post("/v1/videos/characters", headers={"Idempotency-Key": key}, **form)

    first = make("Ball", clips[0], "k").json()
    assert make("Ball", clips[0], "k").json() == first
    for name, clip in (("Box", clips[0]), ("Ball", clips[1])):
        assert make(name, clip, "k").json()["error"]["code"] == "idempotency_key_reused"
    assert make("Ball", clips[0], "other").json()["id"] != first["id"]
    assert len(list(service.storage.keys())) == len(local.get("/api/characters").json()["characters"]) == 2
    assert list(service.settings.scratch.iterdir()) == []


def test_a_character_that_a_video_waits_to_begin_with_stays(local: TestClient, tmp_path: Path) -> None:
    Clip(np.zeros((5, 64, 64, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    files = {"video": ("c.mp4", (tmp_path / "clip.mp4").read_bytes())}
    made = local.post("/v1/videos/characters", data={"name": "Ball"}, files=files).json()["id"]
    body = {"prompt": "it rolls", "characters": [{"id": made}], "seconds": "1"}
    video = local.post("/v1/videos", json=body).json()["id"]
    refused = local.delete(f"/api/characters/{made}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "character_in_use")
    assert refused.headers["x-should-retry"] == "false"  # or the official client asks thrice
    assert local.delete(f"/v1/videos/{video}").status_code == 200
    assert local.delete(f"/api/characters/{made}").status_code == 204


def test_what_cannot_be_cleaned_up_changes_no_answer(
    local: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")

    def away(keys: Any) -> None:
        raise StorageError("the storage is away")

    monkeypatch.setattr(service.storage, "delete", away)
    form = {"data": {"prompt": "it rolls", "guidance": "x"}, "files": {"input_reference": picture.getvalue()}}
    assert local.post("/v1/videos", **form).status_code == 400


def test_what_older_versions_ordered_is_known_to_need_its_files(local: TestClient, service: Service, sent: str) -> None:
    body = {"way": "animate", "prompt": "it rolls", "image": sent}
    name = local.post("/api/videos", json=body).json()["videos"][0]["id"]
    with service.database.writing() as session:
        job = session.get(Job, name)
        assert job is not None
        job.order = job.order | {"gone": True, "cards": [{"at": 0, "source": "file_x", "was": 1}]}
        assert uploads.wanted(session) == {sent, "file_x"}
    assert local.delete(f"/api/uploads/{sent}").status_code == 409


def test_a_character_of_a_video_whose_file_has_just_gone_is_missing(local: TestClient, service: Service) -> None:
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    run = begin(service, name, "worker")
    assert run is not None and run.finish({"video": {"key": "gone", "type": "video/mp4", "bytes": 1}}, {})
    answer = local.post("/v1/videos/characters", json={"name": "Ball", "video": {"id": name}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), answer.text


def test_no_text_with_a_nul_character_is_taken(local: TestClient) -> None:
    """SQLite would keep one, PostgreSQL would not."""
    name = local.post("/api/videos", json={"prompt": "a red ball"}).json()["videos"][0]["id"]
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/videos", {"prompt": "a\0b"}),
        ("POST", "/api/videos", {"prompt": "a red ball", "folder": "\0"}),
        ("POST", "/api/videos", {"prompt": "a red ball", "strength": "\0"}),
        ("POST", "/api/videos", {"way": "storyboard", "cards": [{"at": 0, "prompt": "a\0b"}]}),
        ("PATCH", f"/api/videos/{name}", {"folder": "\0"}),
        ("POST", "/api/folders", {"name": "a\0b"}),
        ("POST", "/api/webhooks", {"url": "http://127.0.0.1/\0"}),
    ]
    for method, path, body in bodies:
        answer = local.request(method, path, json=body)
        assert answer.status_code == 400 and "NUL" in answer.json()["error"]["message"], (path, body, answer.text)
