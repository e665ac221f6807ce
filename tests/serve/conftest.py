"""A service on a new SQLite database and folder, without a worker, and one with accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from yozora.serve.app import create_app
from yozora.serve.context import Service, open_service
from yozora.serve.settings import read_settings


@pytest.fixture
def service(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    """The single-user mode, with a tiny model."""
    opened = open_service(read_settings(data=tmp_path / "data", model=str(tiny_model), queue_limit=12))
    yield opened
    opened.close()


@pytest.fixture
def shared(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    """With accounts."""
    opened = open_service(read_settings(data=tmp_path / "shared", model=str(tiny_model), accounts=True))
    yield opened
    opened.close()


@pytest.fixture
def local(service: Service) -> Iterator[TestClient]:
    """A client of the single-user service."""
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture
def web(shared: Service) -> Iterator[TestClient]:
    """A client of the service with accounts, who is nobody yet."""
    with TestClient(create_app(shared), base_url="http://videos.example.org") as client:
        yield client
