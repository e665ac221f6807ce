"""`yozora serve`, `worker` and `keys`: what is wrong is one line; keys open the service that they are made for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from yozora.cli import main
from yozora.serve.accounts import user_of_key
from yozora.serve.database import Database


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--host", "0.0.0.0"], "--accounts"),
        (["serve", "--port", "99999"], "--port or YOZORA_PORT"),
        (["serve", "--database-url", "mysql://x"], "postgresql://"),
        (["worker", "--storage", "gs://x"], "s3://"),
        (["worker", "--database-url", "postgresql://nobody@127.0.0.1:1/none"], "database cannot be used"),
        (["worker", "--rewriter", "nobody"], "no rewriter"),
        (["keys", "create", "one@example.org"], "--birth-year"),
        (["keys", "create", "one@example.org", "--birth-year", "2020"], "18"),
        (["keys", "list", "one@example.org"], "no account"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "--port", port, "--data", str(tmp_path / "data")]) == 2
    assert "cannot listen" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", str(tmp_path)]
    assert main(["keys", "create", "one@example.org", "--birth-year", "1980", "--role", "admin", *where]) == 0
    key = capsys.readouterr().out.strip()
    database = Database(f"sqlite:///{tmp_path / 'yozora.db'}")
    assert user_of_key(database, key).role == "admin"
    database.close()
    assert main(["keys", "create", "one@example.org", "--name", "second", *where]) == 0
    assert main(["keys", "list", "one@example.org", *where]) == 0
    assert f"…{key[-4:]}" in capsys.readouterr().out
