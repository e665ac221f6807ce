"""A caption: a short one, a dense one, and events with their seconds."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field, StringConstraints, model_validator

from yozora.clip import Clip
from yozora.models.answers import Answer, Plain

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=3000), Plain]


class Event(Answer):
    """From `start` to `end` seconds this happens."""

    start: float = Field(ge=0, le=36_000)
    end: float = Field(ge=0, le=36_000)
    what: Text

    @model_validator(mode="after")
    def _ordered(self) -> Event:
        if self.end < self.start:
            raise ValueError("an event ends before it starts")
        return self


class Caption(Answer):
    """What is said of a clip. `timed` is the events in one line, as the video models learn them."""

    short: Text
    dense: Text
    events: tuple[Event, ...] = Field(default=(), max_length=64)

    @property
    def timed(self) -> str:
        """ "0.0–0.6 s: a red ball falls; …"; "" without events."""
        return "; ".join(f"{event.start:.1f}–{event.end:.1f} s: {event.what.rstrip('.')}" for event in self.events)


class Captioner(Protocol):
    """Says what clips show."""

    @property
    def name(self) -> str: ...

    @property
    def language(self) -> str:
        """That it answers in: "en", "de", …"""
        ...

    def caption(self, clip: Clip) -> Caption:
        """Raises ModelError where it cannot."""
        ...
