"""Several processes that make one video, as torchrun starts them: who this one is, and what all must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, TypeVar

from yozora.errors import ConfigError

if TYPE_CHECKING:
    from yozora.train.mesh import Mesh


Said = TypeVar("Said")


@contextmanager
def together(device: str) -> Iterator[Mesh | None]:
    """The processes that were started, all of which share the tokens of a clip; None for one alone. Only the first of
    them speaks. Raises ConfigError where they cannot have a device each."""
    count = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if count == 1:
        yield None
        return
    if ":" in device:
        raise ConfigError(f"device {device[:40]!r} is one device, and each process needs its own: say cuda or cpu")
    from yozora.train.mesh import meet

    with meet(count, device) as mesh:
        if mesh.first:
            yield mesh
            return
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield mesh


def said_by_first(mesh: Mesh | None, said: Said) -> Said:
    """What the first process says, to all."""
    return said if mesh is None else mesh.from_first(said)
