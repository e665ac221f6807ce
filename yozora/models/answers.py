"""What a language model answers, as a schema wants it: found in its text, checked, and asked for again with a reason.

An answer is not to be trusted: what is no text that may be shown to anybody, or given to a model, is refused.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from yozora.errors import ModelError
from yozora.models.endpoint import Chat, Message

TRIES = 2
MOST_WORDS = 160  # characters of a remark
FENCE = "```"  # of Markdown, around a block

Schema = TypeVar("Schema", bound=BaseModel)


def _plain(text: str) -> str:
    """Text in one line, without marks that cannot be seen. Raises ValueError for control characters, which could take
    over a terminal."""
    line = "".join(sign for sign in " ".join(text.split()) if unicodedata.category(sign) != "Cf")
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in line):
        raise ValueError("holds control characters")
    return line


def _cut(value: Any) -> Any:
    """A text that is too long, cut; anything else as it is."""
    return f"{value[: MOST_WORDS - 1]}…" if isinstance(value, str) and len(value) > MOST_WORDS else value


Plain = AfterValidator(_plain)
Words = Annotated[str, Plain, BeforeValidator(_cut)]


class Answer(BaseModel):
    """Frozen, and of the right types. A field that is null is one that was left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


def ask(chat: Chat, messages: Sequence[Message], schema: type[Schema]) -> Schema:
    """A chat's answer to `messages`, of which the last is the user's. Asked twice at most: the second time it is told
    what was wrong with the first. Raises ModelError."""
    asked, reason = list(messages), ""
    for _ in range(TRIES):
        try:
            answer = chat.answer(asked)
        except ModelError as error:
            reason = str(error)
            continue
        try:
            return read_answer(answer, schema, chat.name)
        except ModelError as error:
            reason = str(error)
            asked = [*messages[:-1], _again(messages[-1], reason.removeprefix(chat.name))]
    raise ModelError(reason)


def read_answer(answer: str, schema: type[Schema], whose: str) -> Schema:
    """An answer as the schema wants it: a JSON object, alone, in a fence of Markdown, or with words around it. Raises
    ModelError."""
    error = None
    for text in _objects(answer):
        try:
            return schema.model_validate_json(text)
        except ValidationError as found:
            error = found.errors()[0]
            if error["type"] != "json_invalid":
                break
    assert error is not None  # the answer itself is looked at, at least
    where = ".".join(map(str, error["loc"])) or "the answer"
    raise ModelError(f"{whose} did not answer as it was asked ({where}: {error['msg'][:120]})")


def _objects(answer: str) -> Iterator[str]:
    """Where the object may be: the likeliest first."""
    said = answer.rpartition("</think>")[2]  # what comes before is no part of the answer
    yield said
    if said.count(FENCE) > 1:
        yield said.split(FENCE, 2)[1].removeprefix("json")
    if 0 <= said.find("{") < said.rfind("}"):
        yield said[said.find("{") : said.rfind("}") + 1]


def _again(message: Message, reason: str) -> Message:
    """A message, and that its answer was none. One message, since some templates refuse two of one role in a row."""
    more = f"An earlier answer to this {reason.strip()}. Answer with that one JSON object and nothing else."
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{content}\n{more}"}
    return {**message, "content": [*content, {"type": "text", "text": more}]}
