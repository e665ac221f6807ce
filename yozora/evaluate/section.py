"""What one measurement hands to the report: a table, its figures, what falls short, and clips to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yozora.clip import Clip


@dataclass(frozen=True)
class Shown:
    """A clip that the report shows. `caption` is the prompt and what was found; `good` is None where there is nothing
    to judge."""

    clip: Clip
    caption: str
    good: bool | None = None


@dataclass(frozen=True)
class Section:
    """One measurement. `about` says in one or two sentences what is measured, and how.

    The first of `columns` names the rows. `figures` are the same numbers as JSON takes them. `notes` are one line
    each: what falls short, what was not run.
    """

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: dict[str, Any]
    notes: tuple[str, ...] = ()
    clips: tuple[Shown, ...] = ()
