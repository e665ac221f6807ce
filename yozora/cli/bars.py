"""Progress bars with the time left: on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

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


class Pace:
    """How far all stages of a run are together, and how long the rest takes: what is left of each stage takes as long,
    step by step, as what is done of it took. (In a long video they take turns, so that the bar of one says little.)"""

    def __init__(self, stages: Sequence[str], now: float) -> None:
        self.steps: dict[str, tuple[int, int]] = dict.fromkeys(stages, (0, 0))
        self.spent = dict.fromkeys(stages, 0.0)
        self.mark = now

    def did(self, stage: str, step: int, total: int, now: float) -> None:
        """`step` of `total` steps of a stage are done, and the time since the last call went into that."""
        self.steps[stage] = (step, total)
        self.spent[stage] += now - self.mark
        self.mark = now

    @property
    def left(self) -> float:
        """Seconds; no less than that where not `all_begun`."""
        return sum(self.spent[stage] * (total - step) / step for stage, (step, total) in self.steps.items() if step)

    @property
    def all_begun(self) -> bool:
        """Whether something of every stage is done, so that all is known of what is left."""
        return all(step for step, _ in self.steps.values())

    @property
    def part(self) -> float:
        """What part of the time has passed, 0 to 1, as far as is known."""
        spent = sum(self.spent.values())
        return spent / (spent + self.left) if spent else 0.0

    def line(self) -> str:
        """The time left, in words."""
        return f"{'' if self.all_begun else 'over '}{timedelta(seconds=round(self.left))} left"


@contextmanager
def bars(stages: Sequence[str], together: bool = True) -> Iterator[Show]:
    """A function `show(stage, step, total)` that draws a bar a stage, of those in STAGES, and above them, where they
    are `together` one piece of work, one of all of it with the time left; else each has its own. Nothing is drawn
    where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, step, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description:>20}"), BarColumn(), TextColumn("{task.fields[count]:>9}")]
    columns += [TimeElapsedColumn(), TextColumn("{task.fields[left]}")]
    own = [] if together else [TextColumn("left"), TimeRemainingColumn()]
    with Progress(*columns, *own, console=Console(stderr=True), transient=True) as progress:
        whole = progress.add_task("all", total=1.0, count="", left="") if together else None
        tasks = {
            stage: progress.add_task(STAGES[stage], total=None, start=False, count="", left="") for stage in stages
        }
        pace = Pace(stages, time.perf_counter())

        def show(stage: str, step: int, total: int) -> None:
            progress.start_task(tasks[stage])
            progress.update(tasks[stage], completed=step, total=total, count=f"{step}/{total}")
            pace.did(stage, step, total, time.perf_counter())
            if whole is not None:
                progress.update(whole, completed=pace.part, count=f"{pace.part:.0%}", left=pace.line())

        yield show
