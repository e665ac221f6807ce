"""What a program that was written for OpenAI's Videos API does, with the unmodified official client.

Run by `test_clients` in a process of its own, which sees one version of `openai`: BASE_URL and KEY are its arguments,
and it prints one JSON object, from each scenario's name to null or to what went wrong.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable
from typing import Any

import openai  # type: ignore[import-not-found]
from openai import OpenAI  # type: ignore[import-not-found]

Scenario = Callable[[OpenAI], None]
QUICK: dict[str, Any] = {"steps": 1, "seed": 3}
SHORT = "0.1"
made: dict[str, Any] = {}


def create_and_poll(client: OpenAI) -> None:
    video = client.videos.create_and_poll(prompt="a red ball", model="sora-2", seconds=SHORT, extra_body=QUICK)
    assert (video.status, video.progress, video.object) == ("completed", 100, "video")
    assert (video.seconds, video.size, video.model, video.prompt) == (SHORT, "128x128", "sora-2", "a red ball")
    assert video.error is None and video.completed_at >= video.created_at > 1_700_000_000
    made["video"] = video.id


def contents(client: OpenAI) -> None:
    kinds = {
        "video": (b"ftyp", "video/mp4"),
        "thumbnail": (b"WEBP", "image/webp"),
        "spritesheet": (b"\xff\xd8", "image/jpeg"),
    }
    for variant, (magic, kind) in kinds.items():
        answer = client.videos.download_content(made["video"], variant=variant)
        assert magic in answer.content[:16] and answer.response.headers["content-type"] == kind
    made["clip"] = client.videos.download_content(made["video"]).content
    part = client.videos.download_content(made["video"], extra_headers={"Range": "bytes=4-7"})
    assert part.response.status_code == 206 and part.content == made["clip"][4:8] == b"ftyp"


def from_a_picture(client: OpenAI) -> None:
    picture = client.videos.download_content(made["video"], variant="thumbnail").content
    video = client.videos.create(
        prompt="it rolls away",
        seconds=SHORT,
        input_reference=("../../etc/x.webp", picture, "image/webp"),
        extra_body=QUICK,
    )
    assert finished(client, video.id).status == "completed"


def odd_size(client: OpenAI) -> None:
    video = client.videos.create_and_poll(prompt="a red ball", seconds=SHORT, size="320x180", extra_body=QUICK)
    assert (video.status, video.size) == ("completed", "320x180")


def pages(client: OpenAI) -> None:
    ids = [client.videos.create(prompt=f"ball {n}", seconds=SHORT, extra_body=QUICK).id for n in range(5)]
    first = client.videos.list(limit=2)
    assert [video.id for video in first.data] == ids[:2:-1] and first.has_more and first.last_id == ids[3]
    assert [video.id for video in client.videos.list(limit=2)][:5] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, after=ids[0], order="asc")] == ids[1:]
    second = client.videos.list(limit=3, after=ids[1], order="asc")
    assert [video.id for video in second.data] == ids[2:] and not second.has_more
    for video in ids:
        assert finished(client, video).status == "completed"
    deleted = []
    for video in client.videos.list(limit=2):  # each page but the first goes on from a video that is gone
        if video.id in ids:
            deleted.append(client.videos.delete(video.id).id)
    assert deleted == ids[::-1]


def remix(client: OpenAI) -> None:
    video = client.videos.remix(made["video"], prompt="a blue ball", extra_body=QUICK)
    assert video.remixed_from_video_id == made["video"] and video.prompt == "a blue ball"
    assert finished(client, video.id).status == "completed"


def edit(client: OpenAI) -> None:
    video = client.videos.edit(prompt="a green ball", video=("ball.mp4", made["clip"]), extra_body=QUICK)
    assert finished(client, video.id).status == "completed"


def edit_by_id(client: OpenAI) -> None:
    """As JSON, and as a field of a form: the client's documented {"id": …} fails inside of it."""
    body = {"prompt": "a green ball", "video": {"id": made["video"]}, **QUICK}
    as_json = client.post("/videos/edits", body=body, cast_to=openai.types.Video)
    form = {"headers": {"Content-Type": "multipart/form-data"}}
    as_form = client.post("/videos/edits", body=body, cast_to=openai.types.Video, options=form)
    for video in (as_json, as_form):
        assert video.remixed_from_video_id == made["video"] and finished(client, video.id).status == "completed"


def extend(client: OpenAI) -> None:
    video = client.videos.extend(
        prompt="it rolls away", video=("ball.mp4", made["clip"]), seconds="1", extra_body=QUICK
    )
    done = finished(client, video.id)
    assert done.status == "completed" and float(done.seconds) > 1, done  # what was sent, and a second more


def characters(client: OpenAI) -> None:
    character = client.videos.create_character(name="Ball", video=("ball.mp4", made["clip"]))
    assert client.videos.get_character(character.id).name == "Ball"
    more = {**QUICK, "characters": [{"id": character.id}]}
    video = client.videos.create(prompt="it bounces", seconds=SHORT, extra_body=more)
    assert finished(client, video.id).status == "completed"
    refused(openai.NotFoundError, lambda: client.videos.get_character("char_none"))


def idempotency(client: OpenAI) -> None:
    key = {"Idempotency-Key": f"once-{openai.__version__}"}
    picture = client.videos.download_content(made["video"], variant="thumbnail").content

    def order(prompt: str) -> Any:
        return client.videos.create(
            prompt=prompt, seconds=SHORT, input_reference=picture, extra_body=QUICK, extra_headers=key
        )

    first = order("a red ball")
    assert order("a red ball").id == first.id
    refused(openai.BadRequestError, lambda: order("a blue ball"))
    finished(client, first.id)


def webhooks(client: OpenAI) -> None:
    came: dict[str, list[tuple[bytes, dict[str, str]]]] = {}  # by video: an earlier one may be finished only now

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            attempts = came.setdefault(json.loads(body)["data"]["id"], [])
            attempts.append((body, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(500 if len(attempts) == 1 else 200)  # the first attempt fails
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        hook = own_api(client, "POST", "/webhooks", {"url": f"http://127.0.0.1:{server.server_port}/told?a=b"})
        video = client.videos.create(prompt="a red ball", seconds=SHORT, extra_body=QUICK)
        end = time.monotonic() + 60
        while len(came.get(video.id, [])) < 2:
            assert time.monotonic() < end, "no webhook came"
            time.sleep(0.05)
        own_api(client, "DELETE", f"/webhooks/{hook['id']}")
    finally:
        server.shutdown()
        server.server_close()
    (first, _), (body, headers) = came[video.id][:2]
    event = client.webhooks.unwrap(body, headers, secret=hook["secret"])
    assert first == body and (event.type, event.data.id, event.object) == ("video.completed", video.id, "event")
    wrong = openai.InvalidWebhookSignatureError
    refused(
        wrong, lambda: client.webhooks.unwrap(body.replace(b"completed", b"failed"), headers, secret=hook["secret"])
    )
    refused(wrong, lambda: client.webhooks.unwrap(body, headers, secret="whsec_" + "QUJD" * 8))


def wrong_key(client: OpenAI) -> None:
    for key in ("yz-wrong", "sk-wrong"):
        other = client.with_options(api_key=key)
        refused(openai.AuthenticationError, lambda other=other: other.videos.list())


def bad_parameters(client: OpenAI) -> None:
    wrong: list[dict[str, Any]] = [
        {"prompt": ""},
        {"prompt": "x", "seconds": "-1"},
        {"prompt": "x", "seconds": "4000"},
        {"prompt": "x", "seconds": "many"},
        {"prompt": "x", "size": "large"},
        {"prompt": "x", "size": "99999x1"},
        {"prompt": "x", "model": "gpt-4"},
        {"prompt": "x", "input_reference": b"no picture"},
        {"prompt": "x", "extra_body": {"steps": "0"}},
        {"prompt": "x", "extra_body": {"unheard": "of"}},
    ]
    for parameters in wrong:
        error = refused(openai.BadRequestError, lambda parameters=parameters: client.videos.create(**parameters))
        assert error.body["message"] and error.type == "invalid_request_error" and error.request_id.startswith("req_")
    refused(openai.BadRequestError, lambda: client.videos.list(limit=1000))
    assert refused(openai.NotFoundError, lambda: client.videos.retrieve("video_" + "0" * 32)).code == "not_found"


def models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"mini", "sora-2", "sora-2-pro"} <= set(names)
    assert client.models.retrieve("sora-2").object == "model"
    refused(openai.NotFoundError, lambda: client.models.retrieve("gpt-4"))


def delete_then_not_found(client: OpenAI) -> None:
    gone = client.videos.delete(made["video"])
    assert gone.deleted and gone.id == made["video"] and gone.object == "video.deleted"
    refused(openai.NotFoundError, lambda: client.videos.retrieve(made["video"]))
    refused(openai.NotFoundError, lambda: client.videos.delete(made["video"]))
    refused(openai.NotFoundError, lambda: client.videos.download_content(made["video"]))


SCENARIOS: tuple[Scenario, ...] = (
    create_and_poll, contents, from_a_picture, odd_size, pages, remix, edit, edit_by_id, extend, characters,
    idempotency, webhooks, wrong_key, bad_parameters, models, delete_then_not_found,
)  # fmt: skip


def finished(client: OpenAI, video_id: str) -> Any:
    return client.videos.poll(video_id, poll_interval_ms=50)


def refused(kind: type[Exception], call: Callable[[], Any]) -> Any:
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {answer!r}")


def own_api(client: OpenAI, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    address = str(client.base_url).removesuffix("/v1/") + "/api" + path
    headers = {"Authorization": f"Bearer {client.api_key}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(address, data, headers, method=method)) as answer:
        return json.loads(answer.read() or b"null")


def main(base_url: str, key: str) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # the client says of every call that Sora is gone
    told: dict[str, str | None] = {"version": openai.__version__}
    with OpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=60) as client:
        for scenario in SCENARIOS:
            try:
                scenario(client)
                told[scenario.__name__] = None
            except Exception:
                told[scenario.__name__] = traceback.format_exc()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
