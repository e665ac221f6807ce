"""World consistency: the abilities that OpenAI's Sora report names ("Video generation models as world simulators",
2024), as numbers: a hidden thing comes back the same, a filmed scene holds together in space, a long video stays what
it was, and what has changed stays changed.

The ceiling is the renderer's own clips of the same scenes; each ability says what its floor is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from yozora.clip import Clip
from yozora.create import Generator
from yozora.evaluate.following import Prompt, Score
from yozora.evaluate.hidden import fullest, goes_out_of_sight, moving_thing
from yozora.evaluate.inspector import Finding, finding_of
from yozora.evaluate.points import Fits, rigid
from yozora.evaluate.scenes import CLEAR, FIRST, NOTHING, Bench, Show, draw_prompts, mean_known
from yozora.evaluate.section import Section, Shown
from yozora.evaluate.states import GROWN, drift, each_second, holds

T = TypeVar("T")
COLUMNS = ("model", "renders", "floor")
OF_255 = ", of 255"  # ends the names of rows that are no shares
SHOWN = 6  # clips of each ability in the report
STATE = {"recolour": "changes colour", "grow": "grows", "shrink": "shrinks"}
STILL = {"cameras": {"still": 1.0}}
SAME = {"hidden: the same colour after": ("colour",), "hidden: the same colour and shape after": ("colour", "shape")}
GROUNDS = ("studio", "grass", "sand", "snow", "city")  # water moves, and space has hardly anything to follow


@dataclass
class Table:
    """Rows of the section: a score or a number a column; and the clips that show what was measured."""

    rows: dict[str, dict[str, Score | float]] = field(default_factory=dict)
    clips: list[Shown] = field(default_factory=list)

    def add(self, name: str, column: str, value: Score | float) -> None:
        """One cell: how many of how many, a share, or a number of 255 where the name says so."""
        self.rows.setdefault(name, {})[column] = value


def consistency(generator: Generator, seconds: float, progress: Show, prompts: int = 16) -> Section:
    """Measures each ability on so many held-out scenes, a clip a scene; the long videos, of `seconds`, on a quarter as
    many. Raises CanvasError, ConfigError."""
    long, table = max(1, prompts // 4), Table()
    bench = Bench(generator, progress, 2 * prompts + long + len(STATE) * _each(prompts))
    permanence(bench, prompts, table)
    space(bench, prompts, table)
    coherence(bench, long, seconds, table)
    states(bench, _each(prompts), table)
    return Section(
        "World consistency",
        f"The abilities that OpenAI's Sora report names, each on {prompts} held-out scenes ({long} for the videos of "
        f"{seconds:g} s, {_each(prompts)} for each change), beside the renderer's own clips of them and a floor.",
        ("", *COLUMNS),
        tuple(
            (name, *(_shown(name, row.get(column, NOTHING)) for column in COLUMNS)) for name, row in table.rows.items()
        ),
        {name: {column: _figure(value) for column, value in row.items()} for name, row in table.rows.items()},
        NOTES,
        tuple(table.clips),
    )


NOTES = (
    "Hidden: a thing passes behind a wall. Its colour and shape in the first quarter of the clip against those in the "
    "last; floor: the last quarter of another prompt's clip.",
    "Space: still things before a camera that pans, dollies or orbits. Of the corners of the first and of the middle "
    "frame, how many can be followed for half the clip, and how many of those go where one homography (a plane) or one "
    "camera's fundamental matrix (any rigid scene) has them; floor: each corner is given another one's way. A "
    "fundamental matrix asks little of a point, which is why its floor is high.",
    "Long: every second is read and compared with the first; floor: the seconds of another prompt's video.",
    f"Change: at the end (the last quarter) the named colour, or {GROWN:g} times the area, or less than that part of "
    "it; it stays where every frame of the last quarter shows it. Floor: the clip's frames shuffled in time.",
    "Colour and shape are read by the project's inspector, which is not always right: see what it says of renders.",
)


def permanence(bench: Bench, count: int, table: Table) -> None:
    """A thing goes behind a wall and comes out again."""
    hide = CLEAR | STILL | {"motions": {"hide": 1.0}}
    prompts = draw_prompts(count, FIRST["hide"], bench.duration, hide, ("colour", "shape", "motion"))
    made = _make_all(bench, prompts, "hidden things")
    real = [bench.render(prompt) for prompt in prompts]
    for column, clips in (("model", made), ("renders", real)):
        looks, ends = [moving_thing(clip, bench.inspector) for clip in clips], max(1, len(clips[0].frames) // 4)
        before = [finding_of(fullest(look, 0, ends), bench.inspector) for look in looks]
        after = [finding_of(fullest(look, len(look.mask) - ends, len(look.mask)), bench.inspector) for look in looks]
        table.add(
            "hidden: seen before and after", column, _score(a.seen * b.seen > 0 for a, b in _pairs(before, after))
        )
        table.add("hidden: out of sight between", column, _score(goes_out_of_sight(look, ends) for look in looks))
        for name, facts in SAME.items():
            table.add(name, column, _all_alike(before, after, facts))
            if column == "model" and count > 1:
                table.add(name, "floor", _all_alike(before, after[1:] + after[:1], facts))
        both = (_named(a, p) and _named(b, p) for a, b, p in zip(before, after, prompts, strict=True))
        table.add("hidden: the prompt's colour and shape both times", column, _score(both))
        if column == "model":
            table.clips += [
                Shown(clip, f"{p.text} (before: {_said(a)}; after: {_said(b)})", _alike(a, b))
                for clip, p, a, b in list(zip(clips, prompts, before, after, strict=True))[:SHOWN]
            ]


def space(bench: Bench, count: int, table: Table) -> None:
    """Still things before a camera that moves."""
    changes = CLEAR | {
        "count": {"2": 1.0},
        "motions": {"still": 1.0},
        "materials": {"checkered": 1.0, "striped": 1.0},
        "cameras": {"pan": 1.0, "dolly": 1.0, "orbit": 1.0},
        "grounds": dict.fromkeys(GROUNDS, 1.0),
    }
    prompts = draw_prompts(count, FIRST["camera"], bench.duration, changes, ("camera",))
    made = _make_all(bench, prompts, "moving cameras")
    real = [bench.render(prompt) for prompt in prompts]
    fits = {"model": [rigid(clip.frames) for clip in made], "renders": [rigid(clip.frames) for clip in real]}
    fits["floor"] = [rigid(clip.frames, shuffled=True) for clip in made]
    for column, found in fits.items():
        judged = sum(np.isfinite(fit.fundamental) for fit in found)
        if column != "floor":
            table.add("space: clips with enough motion to judge", column, Score(int(judged), len(found)))
            table.add("space: corners followed", column, mean_known(fit.followed for fit in found))
        table.add("space: of these, go with one homography", column, mean_known(fit.homography for fit in found))
        table.add("space: of these, go with one camera", column, mean_known(fit.fundamental for fit in found))
    table.clips += [
        Shown(clip, f"{p.text} ({_said_fit(fit)})")
        for clip, p, fit in list(zip(made, prompts, fits["model"], strict=True))[:SHOWN]
    ]


def coherence(bench: Bench, count: int, seconds: float, table: Table) -> None:
    """Long videos of one thing."""
    calm = CLEAR | STILL | {"motions": {"still": 1.0, "spin": 1.0, "circle": 1.0}}
    prompts = draw_prompts(count, FIRST["long"], seconds, calm, ("colour", "shape"))
    made = []
    for prompt in prompts:
        made.append(bench.generator.generate(prompt.text, seed=prompt.seed, seconds=seconds))
        bench.step("long videos")
    real = [bench.render(prompt, len(clip.frames)) for prompt, clip in zip(prompts, made, strict=True)]
    for column, clips in (("model", made), ("renders", real)):
        read = [each_second(bench.inspector, clip) for clip in clips]
        for fact in ("colour", "shape"):
            name = f"long: seconds with the first one's {fact}"
            table.add(name, column, _score(_alike(r[0], f, (fact,)) for r in read for f in r[1:]))
            if column == "model" and count > 1:
                pairs = _pairs(read, read[1:] + read[:1])
                table.add(name, "floor", _score(_alike(r[0], f, (fact,)) for r, other in pairs for f in other[1:]))
        drifts = [drift(clip) for clip in clips]
        table.add("long: change of brightness, of 255", column, float(np.mean([b for b, _ in drifts])))
        table.add("long: drift of the mean colour, of 255", column, float(np.mean([c for _, c in drifts])))
        if column == "model":
            good = [all(_alike(r[0], f) for f in r[1:]) for r in read]
            table.clips += [Shown(c, p.text, g) for c, p, g in list(zip(clips, prompts, good, strict=True))[:SHOWN]]


def states(bench: Bench, each: int, table: Table) -> None:
    """Things that change, and stay changed."""
    for number, (kind, said) in enumerate(STATE.items()):
        change = CLEAR | STILL | {"motions": {kind: 1.0}}
        needed = ("colour", "shape", "motion", *(("colour_to",) if kind == "recolour" else ()))
        prompts = draw_prompts(each, FIRST["state"] + 20_000 * number, bench.duration, change, needed)
        made = _make_all(bench, prompts, "changes")
        columns = {"model": made, "renders": [bench.render(p) for p in prompts], "floor": [_shuffled(c) for c in made]}
        for column, clips in columns.items():
            found = [holds(bench.inspector, clip, prompt, kind) for clip, prompt in zip(clips, prompts, strict=True)]
            table.add(f"{said}: at the end", column, _score(end for end, _ in found))
            table.add(f"{said}: and stays", column, _score(end and stays for end, stays in found))
            if column == "model":
                shown = list(zip(clips, prompts, found, strict=True))[: SHOWN // 2]
                table.clips += [Shown(clip, p.text, end and stays) for clip, p, (end, stays) in shown]


def _make_all(bench: Bench, prompts: Sequence[Prompt], what: str) -> list[Clip]:
    made = []
    for prompt in prompts:
        made.append(bench.make(prompt))
        bench.step(what)
    return made


def _shuffled(clip: Clip) -> Clip:
    return Clip(clip.frames[np.random.default_rng(0).permutation(len(clip.frames))], clip.fps)


def _alike(one: Finding, other: Finding, facts: Sequence[str] = ("colour", "shape")) -> bool:
    """Whether something is found in both, and these facts of it are the same."""
    return bool(one.colour) and all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def _all_alike(one: Sequence[Finding], other: Sequence[Finding], facts: Sequence[str]) -> Score:
    return _score(_alike(a, b, facts) for a, b in _pairs(one, other))


def _named(found: Finding, prompt: Prompt) -> bool:
    return (found.colour, found.shape) == (prompt.colour, prompt.shape)


def _pairs(one: Sequence[T], other: Sequence[T]) -> Iterator[tuple[T, T]]:
    return zip(one, other, strict=True)


def _score(held: Iterable[bool]) -> Score:
    values = [bool(each) for each in held]
    return Score(sum(values), len(values))


def _each(prompts: int) -> int:
    """Scenes of each kind of change."""
    return -(-prompts // len(STATE))


def _said(found: Finding) -> str:
    return f"{found.colour} {found.shape}" if found.colour else "nothing"


def _said_fit(fit: Fits) -> str:
    if not np.isfinite(fit.fundamental):
        return "not enough motion of the camera to judge"
    return f"{fit.followed:.0%} of the corners followed, {fit.fundamental:.0%} of them go with one camera"


def _shown(name: str, value: Score | float) -> str:
    """A cell as the table has it, "" where there is nothing."""
    if isinstance(value, Score):
        return str(value)
    if not np.isfinite(value):
        return ""
    return f"{value:.2f}" if name.endswith(OF_255) else f"{100 * value:.1f} %"


def _figure(value: Score | float) -> dict[str, int] | float:
    """A cell as JSON has it: shares are 0..1."""
    return {"right": value.right, "asked": value.asked} if isinstance(value, Score) else value
