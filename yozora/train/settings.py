"""Reading settings: TOML into a stage's checked object, and one line for the first thing that is wrong with it."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from yozora.errors import ConfigError
from yozora.train.config import Section

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

StageConfig = TypeVar("StageConfig", bound=Section)
ModelConfig = TypeVar("ModelConfig", bound="DataclassInstance")


def read_config(kind: type[StageConfig], path: Path, overrides: Sequence[str] = ()) -> StageConfig:
    """Reads and checks a stage's TOML file; raises ConfigError with the first thing that is wrong."""
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return check_config(kind, raw, str(path), overrides)


def check_config(
    kind: type[StageConfig], raw: dict[str, Any], where: str, overrides: Sequence[str] = ()
) -> StageConfig:
    """A stage's settings, checked; raises ConfigError, which begins with `where`, for the first thing that is wrong."""
    for override in overrides:
        _apply(raw, override)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(error, kind)}") from None


def _first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong, in one line; of an unknown key, which known one it may have been meant to be."""
    unknown = "extra_forbidden"  # comes first: what is misspelt is then missing, too
    first = min(error.errors(), key=lambda each: each["type"] != unknown)
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != unknown:
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    known = _keys_of(kind, first["loc"][:-1])
    return _unknown(where, str(first["loc"][-1]), known)


def _unknown(where: str, name: str, known: Sequence[str]) -> str:
    """What is said of a key that there is not: the one that was meant, where one is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown setting {where}; " + (f"is {near[0]} meant?" if near else f"known: {', '.join(known)}")


def _keys_of(kind: Any, path: Sequence[int | str]) -> list[str]:
    """The settings of the section at `path`, of nested sections and tuples of them."""
    for part in path:
        if isinstance(part, str) and isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[part].annotation
        while kind is not None and not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            inner = [each for each in get_args(kind) if each not in (type(None), ...)]
            kind = inner[0] if inner else None
    return list(kind.model_fields) if kind is not None else []


def build(kind: type[ModelConfig], settings: dict[str, Any], section: str = "model") -> ModelConfig:
    """A dataclass, such as a network's configuration, from a section; ConfigError for what it does not know."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in settings:
        if name not in known:
            raise ConfigError(_unknown(f"{section}.{name}", name, known))
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (section, *first["loc"]))
        raise ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override is section.key=value, not {override!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word is a string
    *sections, last = key.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{section} in {override!r} is not a section")
    raw[last] = parsed
