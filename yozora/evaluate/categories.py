"""Prompt following by category: a model's clips of prompts that state one fact each, beside what bounds the measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from yozora.clip import Clip
from yozora.create import Generator
from yozora.errors import ConfigError
from yozora.evaluate.evidence import look_around
from yozora.evaluate.following import Score, exchanged, film
from yozora.evaluate.inspector import load_inspector
from yozora.evaluate.reading import Reading, load_reader, reading_of
from yozora.evaluate.reconstruction import reconstruct
from yozora.evaluate.section import Section, Shown
from yozora.evaluate.stated import CATEGORIES, CategoryPrompt, category_prompts, found, judge
from yozora.evaluate.weighing import load_weigher, weigh
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader

__all__ = ["CATEGORIES", "CategoryPrompt", "category_prompts", "follow", "judge", "read_closely"]

COLUMNS = ("model", "ceiling", "through autoencoder", "floor")
LEAST_CEILING = 95.0  # percent: below this a figure says much about the reader, too
SHOWN = 2  # clips of each category, the first ones
TITLE = "Prompt following by category"
ABOUT = (
    "Captions of scenes that training never drew, each judged by one fact that it states. Three networks that learned "
    "from renders alone, and never see a prompt, read the clips. Ceiling: the renderer's own clips of the scenes, as "
    "they are and through the model's autoencoder; floor: the model's clips judged by each other's prompts."
)

Show = Callable[[int, int, str], object]  # progress: done, total, what
Scores = dict[str, Score]  # a column


def follow(
    generator: Generator,
    per_category: int,
    progress: Show = lambda done, total, what: None,
    categories: Sequence[str] = CATEGORIES,
) -> Section:
    """Generates a clip of each prompt and judges it. Raises ConfigError for fewer than one prompt a category."""
    if per_category < 1:
        raise ConfigError(f"prompts per category: at least 1, not {per_category}")
    prompts = category_prompts(per_category, categories)
    made, readings = _read_all(generator, prompts, progress)
    right = {column: [judge(p, r) for p, r in zip(prompts, readings[column], strict=True)] for column in COLUMNS[:-1]}
    if per_category > 1:  # or there is no other prompt to judge by
        right["floor"] = [judge(p, r) for p, r in zip(prompts, _handed_on(prompts, readings["model"]), strict=True)]
    by_category = {name: _scores(right, (p.category == name for p in prompts)) for name in categories}
    together = {
        "all": _scores(right, (True for _ in prompts)),
        "combinations seen in training": _scores(right, (not p.held_out for p in prompts)),
        "held-out combinations": _scores(right, (p.held_out for p in prompts)),
    }
    lacking = {name for name, scores in by_category.items() if scores["ceiling"].percent < LEAST_CEILING}
    return Section(
        TITLE,
        ABOUT,
        ("", *COLUMNS, "note"),
        tuple(_row(name, scores, name in lacking) for name, scores in (by_category | together).items() if scores),
        {
            "per_category": per_category,
            "settings": vars(generator.settings()),
            "categories": {name: _figures(scores) for name, scores in by_category.items()},
            "together": {name: _figures(scores) for name, scores in together.items() if scores},
            "clips": [_record(p, r) for p, r in zip(prompts, readings["model"], strict=True)],
        },
        tuple(_notes(by_category, lacking)),
        tuple(_shown(prompts, made, readings["model"])),
    )


def _read_all(
    generator: Generator, prompts: Sequence[CategoryPrompt], progress: Show
) -> tuple[list[Clip], dict[str, list[Reading]]]:
    """The model's clips, and what is read in them and in the renderer's, as they are and through the autoencoder.
    Prompts of two categories that are one and the same share their clip."""
    device = generator.bundle.device
    reader, inspector, native = load_reader(device=device), load_inspector(device=device), generator.native
    done: dict[tuple[str, int], tuple[Clip, dict[str, Reading]]] = {}
    total = len({(prompt.text, prompt.seed) for prompt in prompts})
    for prompt in prompts:
        key = (prompt.text, prompt.seed)
        if key in done:
            continue
        progress(len(done), total, f"{prompt.category}: {prompt.text}")
        made = generator.generate(prompt.text, seed=prompt.seed)
        real = film(prompt, native.size, native.frames_max, native.fps)
        clips = (made, real, reconstruct(generator.bundle.autoencoder, real))
        done[key] = (
            made,
            {column: read_closely(clip, reader, inspector) for column, clip in zip(COLUMNS, clips, strict=False)},
        )
    progress(total, total, "")
    found_by = [done[prompt.text, prompt.seed] for prompt in prompts]
    return [clip for clip, _ in found_by], {column: [read[column] for _, read in found_by] for column in COLUMNS[:-1]}


def read_closely(clip: Clip, reader: Reader | None = None, inspector: Inspector | None = None) -> Reading:
    """As `read_clip`, but for what is told better once the geometry of the background is weighed, too: by that, a move
    of the camera and, since it says how far away a thing stands, the size of one. (The shipped network weighs, which
    has learned from what the shipped reader and inspector say.)"""
    inspector, reader = inspector or load_inspector(), reader or load_reader()
    sight = look_around(clip, inspector, reader)
    reading = reading_of(sight.looks[:3], sight.said, sight.surfaces[0], sight.count, inspector, reader)
    weighed, _ = weigh(sight, load_weigher())
    size = weighed["size"].name if reading.finding.shape else ""
    return replace(reading, names={**reading.names, "size": size, "camera": weighed["filmed"].name.partition(" ")[0]})


def _handed_on(prompts: Sequence[CategoryPrompt], readings: Sequence[Reading]) -> list[Reading]:
    """Each clip's reading handed to another prompt of its category."""
    random, out = np.random.default_rng(7), list(readings)
    for category in dict.fromkeys(prompt.category for prompt in prompts):
        group = [i for i, prompt in enumerate(prompts) if prompt.category == category]
        for here, there in zip(group, exchanged(group, random), strict=True):
            out[here] = readings[there]
    return out


def _scores(right: dict[str, list[bool]], which: Iterable[bool]) -> Scores:
    """The scores of some of the prompts; empty where there are none."""
    chosen = [i for i, here in enumerate(which) if here]
    return {column: Score(sum(row[i] for i in chosen), len(chosen)) for column, row in right.items()} if chosen else {}


def _row(name: str, scores: Scores, lacking: bool) -> tuple[str, ...]:
    return (
        name,
        *(str(scores.get(column, "")) for column in COLUMNS),
        f"ceiling under {LEAST_CEILING:g} %" if lacking else "",
    )


def _figures(scores: Scores) -> dict[str, dict[str, float]]:
    return {
        column: {"right": score.right, "asked": score.asked, "percent": round(score.percent, 1)}
        for column, score in scores.items()
    }


def _notes(by_category: dict[str, Scores], lacking: set[str]) -> list[str]:
    """What cannot be relied on."""
    return [
        f"{name}: of the renderer's own clips {scores['ceiling']} are read rightly; the rest is the readers' fault"
        for name, scores in by_category.items()
        if name in lacking
    ]


def _record(prompt: CategoryPrompt, reading: Reading) -> dict[str, Any]:
    return {
        "category": prompt.category,
        "prompt": prompt.text,
        "seed": prompt.seed,
        "asked": list(prompt.asked),
        "found": list(found(prompt, reading)),
        "right": judge(prompt, reading),
        "held_out": prompt.held_out,
    }


def _shown(prompts: Sequence[CategoryPrompt], made: Sequence[Clip], readings: Sequence[Reading]) -> list[Shown]:
    """The first clips of each category, with what was found in them."""
    count: dict[str, int] = {}
    shown: list[Shown] = []
    for prompt, clip, reading in zip(prompts, made, readings, strict=True):
        count[prompt.category] = count.get(prompt.category, 0) + 1
        if count[prompt.category] <= SHOWN:
            names = " ".join(name or "nothing" for name in found(prompt, reading))
            asked = " ".join(prompt.asked)
            caption = f"{prompt.category}, {asked}: {prompt.text} Found: {names}"
            shown.append(Shown(clip, caption, judge(prompt, reading)))
    return shown
