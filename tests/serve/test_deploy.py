"""What `deploy/` starts is what there is: its commands parse, and the variables it sets are settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from yozora.cli import app
from yozora.serve.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def commands() -> Iterator[tuple[str, list[str]]]:
    """(name, arguments after `yozora`) of everything that the manifests and the compose file start."""
    for each in yaml.safe_load_all((DEPLOY / "kubernetes" / "yozora.yaml").read_text()):
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            yield each["metadata"]["name"], container["args"]
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        if "command" in service:
            yield name, service["command"]


@pytest.mark.parametrize(("name", "arguments"), list(commands()))
def test_commands_are_known(name: str, arguments: list[str]) -> None:
    verb, *options = arguments
    group = typer.main.get_group(app)
    assert group.commands[verb].make_context(verb, options).params  # raises for an option that there is not


def test_variables_are_settings() -> None:
    names = {f"YOZORA_{name.upper()}" for name in Settings.model_fields}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    set_here = {name for service in compose["services"].values() for name in service.get("environment", {})}
    used = {name for name in set_here if name.startswith("YOZORA_")}
    words = (DEPLOY / "kubernetes" / "yozora.yaml").read_text().replace("=", " ").split()
    used |= {word for word in words if word.startswith("YOZORA_")}
    assert {"YOZORA_DATABASE_URL", "YOZORA_STORAGE"} <= used <= names
