"""The errors a user can meet: each says what was wrong and what to do about it, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class YozoraError(Exception):
    """Something the user can put right. The command line prints it as one line and exits with 2."""


class MediaError(YozoraError):
    """A media file could not be read or written."""


class CanvasError(YozoraError):
    """A canvas (size, length, rate, prompts, anchors) that no model could fill."""


class ModelError(YozoraError):
    """A model folder that is missing, broken, mismatched or unsafe to load."""


class ConfigError(YozoraError):
    """A training or model configuration, or a preset, that cannot be used."""


class SceneError(YozoraError):
    """A scene description that is not valid."""


class YozoraWarning(UserWarning):
    """What is made, or read, is not quite what one may think, such as outside of what the model was trained on."""


@contextmanager
def needing(what: str, extras: str) -> Iterator[None]:
    """Raises YozoraError where what is imported within is not installed: that `what` needs it ("training needs"), and
    which `extras` bring it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("yozora"):
            raise
        raise YozoraError(f"{what} {error.name}: pip install 'yozora[{extras}]'") from None


def printable(text: object) -> str:
    """A text in one line, without signs that no terminal shows, or that could take one over."""
    return "".join(sign for sign in " ".join(str(text).split()) if sign.isprintable())


def first_line(error: Exception) -> str:
    """What an error of somebody else's code says, or what it is where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
