from __future__ import annotations

from pathlib import Path

import pytest

from yozora.errors import ConfigError
from yozora.serve.settings import read_settings


def test_one_machine_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = read_settings()
    assert settings.url == f"sqlite:///{tmp_path}/yozora/yozora.db"
    assert settings.files == f"{tmp_path}/yozora/files"
    assert (settings.host, settings.accounts, settings.model) == ("127.0.0.1", False, "mini")
    assert settings.names["sora-2"] == "mini"


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOZORA_PORT", "1234")
    monkeypatch.setenv("YOZORA_MODELS", "a, b")
    assert read_settings().port == 1234
    assert read_settings(port=99, host=None).port == 99
    assert read_settings().known_models == ["mini", "a", "b"]


@pytest.mark.parametrize(
    "url", ["postgresql://me@there/db", "postgres://me@there/db", "postgresql+psycopg://me@there/db"]
)
def test_postgresql_by_any_of_its_names(url: str) -> None:
    assert read_settings(database_url=url).url == "postgresql+psycopg://me@there/db"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host": "0.0.0.0"}, "--accounts"),
        ({"port": 70000}, "port"),
        ({"database_url": "mysql://x"}, "postgresql://"),
        ({"storage": "gs://x"}, "s3://"),
        ({"slots": 0}, "--slots or YOZORA_SLOTS"),
        ({"dead_seconds": 1.0}, "heartbeat"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        read_settings(**given)
    assert "\n" not in str(raised.value)


def test_everybody_may_be_served_with_accounts() -> None:
    assert read_settings(host="0.0.0.0", accounts=True).host == "0.0.0.0"
