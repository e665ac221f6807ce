"""Plans: what an account may do, as data (plans.toml)."""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from yozora.errors import ConfigError

__all__ = ["LOCAL", "Plan", "find_plan", "load_plans"]

SHIPPED = Path(__file__).with_name("plans.toml")
LOCAL = "local"


class Plan(BaseModel):
    """The limits of one plan; 0 is none. See plans.toml for what each means."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    concurrency: int = Field(ge=1)
    waiting: int = Field(ge=0)
    monthly_seconds: float = Field(ge=0)
    largest: int = Field(ge=1)
    longest: float = Field(gt=0)
    keep_days: float = Field(ge=0)
    priority: bool
    watermark_free: bool


def load_plans() -> dict[str, Plan]:
    """All plans by name: the shipped ones, or those of the file that YOZORA_PLANS names. Raises ConfigError."""
    return dict(_read(os.environ.get("YOZORA_PLANS") or str(SHIPPED)))


def find_plan(name: str) -> Plan:
    """The plan of that name. Raises ConfigError."""
    plans = load_plans()
    if name not in plans:
        raise ConfigError(f"there is no plan {name[:40]!r}; known: {', '.join(plans)}")
    return plans[name]


@lru_cache(maxsize=4)
def _read(path: str) -> tuple[tuple[str, Plan], ...]:
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        plans = {name: Plan(name=name, **table) for name, table in tables.items()}
    except OSError as error:
        raise ConfigError(f"cannot read the plans in {path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())[:160]
        raise ConfigError(f"{path} does not hold plans: {told}") from None
    if LOCAL not in plans or "free" not in plans:
        raise ConfigError(f"{path} must have the plans {LOCAL!r} and 'free', which new accounts begin with")
    return tuple(plans.items())
