"""Schemathesis over the OpenAPI description: whatever is sent, nothing is answered with a server error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from yozora.serve.accounts import create_account, create_key
from yozora.serve.database import Database
from yozora.serve.settings import read_settings

HEADERS: dict[str, str] = {}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


@pytest.fixture(scope="module")
def described(database_url: str, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a server that nobody works for: what is ordered only waits."""
    data = tmp_path_factory.mktemp("described")
    arguments = ["--accounts", "--workers", "0", "--port", "0", "--data", str(data), "--model", str(tiny_model)]
    arguments += ["--database-url", database_url]
    with processes.running("serve", *arguments, log=data / "log.txt") as process:
        database = Database(read_settings(data=data, database_url=database_url).url)
        admin = create_account(database, "schema@example.org", None, 1980, "admin", "pro")
        key, _ = create_key(database, admin.id)
        database.close()
        HEADERS["Authorization"] = f"Bearer {key}"
        yield schemathesis.openapi.from_url(f"{processes.address(process)}/openapi.json")
        assert "a request failed" not in process.text, process.text[-4000:]


def test_nothing_is_a_server_error_and_all_is_as_described(described: Any) -> None:
    tried = 0
    for operation in (result.ok() for result in described.get_all_operations()):

        @given(case=operation.as_strategy())
        @settings(max_examples=6, deadline=None, database=None, suppress_health_check=SLOW)
        def send(case: Any) -> None:
            answer = case.call(headers=HEADERS, timeout=60)
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, answer.text

        send()
        tried += 1
    assert tried > 40
