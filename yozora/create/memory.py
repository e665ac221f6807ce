"""What to do when memory does not suffice: which switch helps at the stage where it ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from yozora.errors import CanvasError
from yozora.models.running import Running

TILE = 256  # pixels, the tiles that are advised


class NotEnoughMemory(CanvasError):
    """What is asked for does not fit into this machine's memory as it is now."""


def advice(stage: str, running: Running, device: torch.device, tile: int, large: bool = True) -> str:
    """What helps at a `stage` ("load", "text", "sample", "decode") and is not in use. `large`: of open weights."""
    switches = []
    if stage == "decode" and not tile:
        switches.append(f"--tile {TILE}")
    if large:
        if running.weights is None and stage in ("load", "sample"):
            switches.append("--weights int8")
        if running.offload is None and stage != "text":  # which frees the others' memory while one part is at work
            instead = " without --compile" if running.compiled else ""
            switches.append(f"--offload {'disk' if device.type == 'cpu' else 'cpu'}{instead}")
    less = "" if stage == "load" else "a smaller size, fewer seconds or fewer variations"
    helps = " or ".join(filter(None, (" or ".join(switches), less)))
    return f"ask for {helps}" if helps else "a smaller model, or more memory, is needed"


@contextmanager
def memory_errors(what: str, help_now: Callable[[], str]) -> Iterator[None]:
    """Raises NotEnoughMemory where memory does not suffice for `what`, with the help that is asked for then."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch has an exception for GPUs only; on a CPU its allocator raises a bare RuntimeError
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in str(error):
            raise
        raise NotEnoughMemory(f"not enough memory for {what}: {help_now()}") from None
