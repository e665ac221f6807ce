"""The OpenAPI description says of each address how it answers, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

CONTENT = ("/v1/videos/{video_id}/content", "/api/videos/{video_id}/content")
FILES = {"video/mp4", "image/png", "image/webp", "image/jpeg"}


def operations(client: TestClient) -> dict[tuple[str, str], dict[str, Any]]:
    paths = client.get("/openapi.json").json()["paths"]
    return {(method, path): each for path, methods in paths.items() for method, each in methods.items()}


def with_status(client: TestClient, status: str) -> set[str]:
    return {path for (_, path), each in operations(client).items() if status in each["responses"]}


def test_statuses_stand_where_they_happen(web: TestClient) -> None:
    assert with_status(web, "422") == set() and with_status(web, "500") == set()
    for status in ("206", "304", "416"):
        assert with_status(web, status) == set(CONTENT)
    bodies = {path for (_, path), each in operations(web).items() if "requestBody" in each}
    for status in ("408", "413", "415"):
        assert with_status(web, status) == bodies
    free = {"/api/sign-up", "/api/sign-out", "/api/plans", "/healthz", "/readyz", "/metrics"}
    assert with_status(web, "401") == {path for _, path in operations(web)} - free
    document = web.get("/openapi.json").json()
    assert "ValidationError" not in str(document["components"]) and set(document["components"]["securitySchemes"]) == {
        "key", "browser",
    }  # fmt: skip
    signed = {path for (_, path), each in operations(web).items() if "security" in each}
    assert signed == with_status(web, "401") - {"/api/sign-in"}


def test_one_users_service_asks_for_no_key(local: TestClient) -> None:
    document = local.get("/openapi.json").json()
    assert with_status(local, "401") == {"/api/sign-in"} and "securitySchemes" not in document["components"]
    assert "/v1/videos/{video_id}" in with_status(local, "403")


@pytest.mark.parametrize("path", CONTENT)
def test_files_and_events_are_told_as_what_they_are(web: TestClient, path: str) -> None:
    answers = operations(web)["get", path]["responses"]
    assert set(answers["200"]["content"]) == set(answers["206"]["content"]) == FILES
    assert "content" not in answers["304"] and "Content-Range" in answers["206"]["headers"]
    names = {each["name"] for each in operations(web)["get", path]["parameters"]}
    assert {"Range", "If-Range", "If-None-Match", "variant", "video_id"} == names
    events = operations(web)["get", "/api/videos/{video_id}/events"]["responses"]["200"]["content"]
    assert set(events) == {"text/event-stream"}
    sent = operations(web)["post", "/api/uploads"]["requestBody"]["content"]
    assert set(sent) == {"multipart/form-data"}


def test_headers_that_answers_bear_are_told(web: TestClient) -> None:
    named = {
        (method, path, status): set(answer["headers"])
        for (method, path), each in operations(web).items()
        for status, answer in each["responses"].items()
    }
    assert all("x-request-id" in names for names in named.values())
    assert "x-request-id" in web.get("/openapi.json").json()["components"]["headers"]
    assert {key[1] for key, names in named.items() if "openai-poll-after-ms" in names} == {"/v1/videos/{video_id}"}
    assert {status for (_, _, status), names in named.items() if "Retry-After" in names} == {"429", "503"}
