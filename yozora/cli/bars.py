"""Progress bars with the time left: on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Show = Callable[[str, int, int], object]

STAGES = {
    "text": "reading the prompt",
    "sample": "sampling",
    "decode": "decoding",
    "enhance": "enhancing",
    "following": "prompt following",
    "quality": "video quality",
    "consistency": "world consistency",
    "media": "footage",
}


@contextmanager
def bars(stages: Sequence[str]) -> Iterator[Show]:
    """A function `show(stage, step, total)` that draws a bar a stage, of those in STAGES. Nothing is drawn where
    stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, step, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *left, console=Console(stderr=True), transient=True) as progress:
        tasks = {stage: progress.add_task(STAGES[stage], total=None, start=False) for stage in stages}

        def show(stage: str, step: int, total: int) -> None:
            progress.start_task(tasks[stage])
            progress.update(tasks[stage], completed=step, total=total)

        yield show
