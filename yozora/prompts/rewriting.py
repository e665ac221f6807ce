"""What a prompt was understood as: a caption in the words that the video model learned, and the facts in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Protocol

from pydantic import BeforeValidator, Field, StringConstraints

from yozora.errors import ModelError
from yozora.models.answers import Answer, Plain, Words

MOST = 16  # entries of a list

Caption = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=1200), Plain]
Seconds = Annotated[Annotated[float, Field(gt=0, le=3600)] | None, BeforeValidator(lambda given: given or None)]

log = logging.getLogger(__name__)


class Subject(Answer):
    """Somebody or something that the prompt is about."""

    what: Annotated[Words, Field(min_length=1)]
    attributes: tuple[Words, ...] = Field(default=(), max_length=MOST)
    motion: Words = ""


class Understood(Answer):
    """What an engine makes of a prompt: the schema that every answer is checked against. `seconds` is how long the
    prompt says that the video is to be, which is a hint and no more."""

    caption: Caption
    subjects: tuple[Subject, ...] = Field(min_length=1, max_length=MOST)
    setting: Words = ""
    camera: Words = ""
    style: Words = ""
    seconds: Seconds = None
    notes: tuple[Words, ...] = Field(default=(), max_length=MOST)


class Similar(Answer):
    """A caption from a library, that of the clip `source`, and the facts in it: what a prompt leaves open may be as
    there."""

    caption: str
    facts: dict[str, str] = Field(default_factory=dict)
    source: str = ""


class Rewriting(Answer):
    """A prompt and what became of it. `understood` is None where the prompt goes through as it is, for the reason in
    `warning`; or without one, where it needs no rewriting."""

    prompt: str
    understood: Understood | None = None
    engine: str = ""
    warning: str = ""

    @property
    def text(self) -> str:
        """What the video model is given."""
        return self.understood.caption if self.understood else self.prompt

    @property
    def changed(self) -> bool:
        """Whether that is another text than the prompt."""
        return self.text != self.prompt


class Engine(Protocol):
    """A way of understanding prompts."""

    @property
    def name(self) -> str: ...

    def understand(self, prompt: str, similar: Sequence[Similar] = ()) -> Understood | None:
        """What the prompt asks for, or None where it is good as it is. What it leaves open may be as in `similar`.
        Raises ModelError where that did not work."""
        ...


class Rewriter:
    """Puts prompts into captions' words by an engine; where that fails the prompt stays as it is, with a warning.
    `find` gives captions that are like a prompt: see `yozora.prompts.retrieval.Similars`."""

    def __init__(self, engine: Engine, find: Callable[[str], Sequence[Similar]] | None = None) -> None:
        self.engine, self.find = engine, find

    def rewrite(self, prompt: str) -> Rewriting:
        """An empty prompt stays empty."""
        if not prompt.strip():
            return Rewriting(prompt=prompt, engine=self.engine.name)
        similar = self.find(prompt) if self.find else ()
        try:
            understood = self.engine.understand(prompt, similar)
        except ModelError as error:
            warning = f"the prompt was not rewritten: {error}"
        else:
            return Rewriting(prompt=prompt, understood=understood, engine=self.engine.name)
        log.warning(warning)
        return Rewriting(prompt=prompt, engine=self.engine.name, warning=warning)
