"""Does every way of creating do what it is for? Each is tried on held-out scenes of one thing, whose true course the
renderer knows; a row a way says what was measured, what it must be, and whether it is.

What must hold of every clip counts as held where it does on the mean; beside it stands in how many clips it does. A
step is the mean absolute difference of two neighbouring frames' pixels, of 255. What stands "in the file" was written
as an MP4 and read back.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from common import show_table, write_results
from ways_lab import (
    FACTS,
    Filmed,
    Lab,
    baselines,
    box_around,
    count_right,
    distance,
    likeness,
    median_step,
    seam_of,
    steps,
    through_file,
)

from yozora.clip import Clip
from yozora.create import Canvas, join, ways
from yozora.create.board import Board
from yozora.create.canvas import Cue
from yozora.create.generator import YozoraWarning
from yozora.create.windows import plan, turn_of
from yozora.evaluate import Finding, Prompt, inspect_clip, psnr

SEAM, STEP = 1.2, 2.0  # times the median step: a loop's seam; any step of a blend or at a window's border
LIKE = 0.9  # of the prompts that are followed in a video of their own, how many must be followed elsewhere
STRENGTHS = (0.3, *ways.STRENGTHS.values(), 1.0)
CARD = 2.0  # seconds that a card of a storyboard is shown


def main() -> None:
    parser = argparse.ArgumentParser(description="What every way of creating must show.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--scenes", type=int, default=16, help="held-out scenes a way (a quarter as many long videos)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the long videos")
    parser.add_argument("--only", default=",".join(WAYS), help=f"some of {','.join(WAYS)}")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - WAYS.keys():
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    if options.scenes < 1:
        parser.error("at least one scene is needed")

    warnings.simplefilter("ignore", YozoraWarning)  # long videos are meant to be longer than the window
    lab, rows, started = Lab(options), [], time.perf_counter()
    for way in wanted:
        rows += WAYS[way](lab)
    seconds = round(time.perf_counter() - started, 1)
    answer = {True: "yes", False: "no", None: ""}
    show_table(
        f"{options.scenes} held-out scenes a way, {lab.generator.bundle.name}, {seconds:g} s",
        ["", "measured", "must be", "is"],
        [[row.way, row.measured, row.needed, answer[row.passed]] for row in rows],
    )
    settings = vars(lab.generator.settings(options.steps))
    results = {row.way: asdict(row) for row in rows}
    write_results(
        "ways",
        {"model": options.model, "settings": settings, "scenes": options.scenes, "seconds": seconds, "ways": results},
    )


@dataclass(frozen=True)
class Row:
    """A row of the table. `passed` None: nothing is asked. `figures` are for the JSON."""

    way: str
    measured: str
    needed: str
    passed: bool | None
    figures: dict[str, Any]


# ---- ways that continue what is given: the true course is known ------------------------------------------------------


def animate(lab: Lab) -> list[Row]:
    held = np.arange(lab.native.frames_max) < 1
    return follow(
        lab,
        "animate",
        held,
        lambda film: ways.animate(film.clip.frames[0], film.prompt.text, native=lab.native),
        asked=False,
    )


def extend(lab: Lab) -> list[Row]:
    frames, half = lab.native.frames_max, lab.first(4)
    seconds = (frames - half) / lab.native.fps
    return follow(
        lab,
        "extend",
        np.arange(frames) < half,
        lambda film: ways.extend(lab.part(film, 0, half), film.prompt.text, native=lab.native, seconds=seconds),
    )


def backward(lab: Lab) -> list[Row]:
    frames, half = lab.native.frames_max, lab.first(4)
    seconds = half / lab.native.fps
    return follow(
        lab,
        "extend --backward",
        np.arange(frames) >= half,
        lambda film: ways.extend(
            lab.part(film, half, frames), film.prompt.text, native=lab.native, seconds=seconds, backward=True
        ),
    )


def fill(lab: Lab) -> list[Row]:
    """Two latent frames are given at either end."""
    frames, until, since = lab.native.frames_max, lab.first(2), lab.first(-2)

    def draw(film: Filmed) -> Canvas:
        cards = [(0.0, lab.part(film, 0, until)), (since / lab.native.fps, lab.part(film, since, frames))]
        return join.fill(cards, film.prompt.text, native=lab.native)

    places = np.arange(frames)
    return follow(lab, "fill", (places < until) | (places >= since), draw)


def recut(lab: Lab) -> list[Row]:
    """Two latent frames in the middle are invented anew."""
    frames, until, since = lab.native.frames_max, lab.first(3), lab.first(-2)
    keep = [(0.0, until / lab.native.fps), (since / lab.native.fps, frames / lab.native.fps)]
    places = np.arange(frames)
    return follow(
        lab,
        "recut",
        (places < until) | (places >= since),
        lambda film: join.recut(film.clip, keep, film.prompt.text, native=lab.native),
    )


def follow(lab: Lab, name: str, held: np.ndarray, draw: Callable[[Filmed], Canvas], asked: bool = True) -> list[Row]:
    """Two rows: whether frames that are `held`, bool [F], come back, and how well the others follow the true course."""
    raw, own, exact, in_file = [], [], 0, []
    ious: dict[str, list[float]] = {"made": [], "repeated": [], "faded": [], "true": []}
    decibels: dict[str, list[float]] = {"made": [], "repeated": [], "faded": []}
    for film in lab.each(lab.movers, name):
        made, decoded = lab.watch(draw(film), film.prompt.seed)
        true = film.clip.frames
        raw.append(psnr(decoded[held], true[held]))
        own.append(psnr(film.through[held], true[held]))
        exact += bool((made[held] == true[held]).all())
        in_file.append(likeness(through_file(Clip(made, film.clip.fps)).frames[held], true[held]))
        repeated, faded = baselines(true, held)
        for kind, frames in {"made": made, "repeated": repeated, "faded": faded, "true": true}.items():
            ious[kind].append(lab.overlap(frames[~held], film.thing[~held]))
            if kind in decibels:
                decibels[kind].append(likeness(frames[~held], true[~held]))
    iou = {kind: float(np.nanmean(values)) for kind, values in ious.items()}
    db = {kind: float(np.mean(values)) for kind, values in decibels.items()}
    won = int((np.array(ious["made"]) > np.maximum(ious["repeated"], ious["faded"])).sum())
    back, itself, written = (float(np.mean(values)) for values in (raw, own, in_file))
    count = len(lab.movers)
    return [
        Row(
            f"{name}: given frames",
            f"{exact} of {count} exact; decoded, before they are laid over, {back:.2f} dB; "
            f"in the file {written:.2f} dB",
            f"all exact; in the file ≥ {itself:.2f} dB, the autoencoder's own",
            exact == count and written >= itself,
            {"decoded": back, "in_the_file": written, "autoencoder": itself, "exact": exact},
        ),
        Row(
            f"{name}: true course",
            f"mask IoU {iou['made']:.3f} (best in {won} of {count}), {db['made']:.2f} dB",
            f"> {iou['repeated']:.3f} nearest given frame repeated ({db['repeated']:.2f} dB), > {iou['faded']:.3f} "
            f"cross-fade ({db['faded']:.2f} dB); the true frames' own is {iou['true']:.3f}",
            iou["made"] > max(iou["repeated"], iou["faded"]) if asked else None,
            {"iou": iou, "psnr": db, "best": won},
        ),
    ]


# ---- ways that are judged by their steps -----------------------------------------------------------------------------


def loop(lab: Lab) -> list[Row]:
    """Of a prompt alone, and of the first half of a true clip. One of a prompt begins anywhere in its round: the larger
    step counts of that from its last frame to its first and that where what was made last meets what was made first."""
    half, rows = lab.first(4), []
    for name, clip in (("loop PROMPT", False), ("loop CLIP", True)):
        seams, in_file, usual = [], [], []
        for film in lab.each(lab.mixed, name):
            given, text, seed = lab.part(film, 0, half) if clip else None, film.prompt.text, film.prompt.seed
            canvas = ways.loop(given, text, native=lab.native)
            made = lab.generator.run_many(canvas, [seed], **lab.sampling)[0]
            meets = len(made.frames) - turn_of(canvas, lab.native) if canvas.turns else 0
            seams.append(seam_of(made.frames, meets))
            in_file.append(seam_of(through_file(made).frames, meets))
            usual.append(float(np.percentile(steps(made.frames), 95)) / median_step(made.frames))
        within = int((np.array(seams) <= SEAM).sum())
        seam, written = float(np.mean(seams)), float(np.mean(in_file))
        rows.append(
            Row(
                f"{name}: step across the seam",
                f"{seam:.2f} × the median step ({within} of {len(seams)} within); in the file {written:.2f} ×",
                f"≤ {SEAM:g} ×, both (other steps' 95th percentile {np.mean(usual):.2f} ×)",
                max(seam, written) <= SEAM,
                {"seams": seams, "in_the_file": in_file, "percentile_95": usual},
            )
        )
    return rows


def blend(lab: Lab) -> list[Row]:
    """Overlapping wholly, as it is when no length is asked for, and by half: then all of the change, from one scene to
    quite another, has to fit into half a clip."""
    rows = []
    longer = 1.5 * lab.native.frames_max / lab.native.fps
    for name, seconds in (("blend", None), (f"blend --seconds {longer:.3g}", longer)):
        ends, largest = [], []
        pairs = list(zip(lab.mixed, lab.mixed[1:] + lab.mixed[:1], strict=True))
        for a, b in lab.each(pairs, name):
            made = lab.generator.blend(a.clip, b.clip, seconds=seconds, seed=a.prompt.seed, **lab.sampling).frames
            for film, place in ((a, 0), (b, -1)):
                true = film.clip.frames[place]
                ends.append(likeness(made[place], true) - likeness(film.through[place], true))
            largest.append(float(steps(made).max()) / median_step(made))
        within, most = int((np.array(largest) <= STEP).sum()), float(np.mean(largest))
        rows.append(
            Row(
                f"{name}: from A to B",
                f"ends {min(ends):+.1f} dB or more against the autoencoder's own; largest step {most:.2f} × the "
                f"median ({within} of {len(pairs)} within)",
                f"≥ 0 dB; ≤ {STEP:g} ×",
                min(ends) >= 0 and most <= STEP,
                {"ends": ends, "largest": largest},
            )
        )
    return rows


def remix(lab: Lab) -> list[Row]:
    """Each clip under the next one's prompt; where that names another colour, whether a strong remix shows it."""
    table, recoloured = [], []
    for film, other in lab.each(list(zip(lab.mixed, lab.mixed[1:] + lab.mixed[:1], strict=True)), "remix"):
        given, text, seed = film.clip, other.prompt.text, film.prompt.seed
        made = [lab.generator.remix(given, text, strength=s, seed=seed, **lab.sampling) for s in STRENGTHS]
        table.append([distance(clip.frames, given.frames) for clip in made])
        if other.prompt.colour != film.prompt.colour:
            strong = made[STRENGTHS.index(ways.STRENGTHS["strong"])]
            recoloured.append(inspect_clip(strong, lab.inspector).colour == other.prompt.colour)
    means = np.mean(table, 0)
    rising = int((np.diff(table, axis=1) > 0).all(1).sum())
    names = ", ".join(f"{strength:g}" for strength in STRENGTHS)
    return [
        Row(
            "remix: distance from the source",
            f"{' '.join(f'{mean:.1f}' for mean in means)} at {names} (rising in {rising} of {len(table)}); "
            f"a strong one has the new colour in {sum(recoloured)} of {len(recoloured)}",
            "rising with the strength",
            bool((np.diff(means) > 0).all()),
            {"strengths": STRENGTHS, "distances": table, "recoloured": recoloured},
        )
    ]


def long(lab: Lab) -> list[Row]:
    """Made in windows: the step onto a window's first frame against the others. Its thing is looked for once more in
    the last frames."""
    worst, usual, above, borders, colour = [], [], 0, 0, 0
    films = lab.mixed[: max(1, lab.options.scenes // 4)]
    for film in lab.each(films, f"{lab.options.seconds:g} s"):
        canvas = ways.text_to_video(film.prompt.text, native=lab.native, seconds=lab.options.seconds)
        fresh = [lab.native.grid.first_frame(window.fresh) for window in plan(canvas, lab.native) if window.fresh]
        clip = lab.generator.run_many(canvas, [film.prompt.seed], **lab.sampling)[0]
        every, median = steps(clip.frames), median_step(clip.frames)
        places = np.array(fresh, int) - 1
        percentile = float(np.percentile(np.delete(every, places), 95))
        worst.append(float(every[places].max(initial=0)) / median)
        usual.append(percentile / median)
        above, borders = above + int((every[places] > percentile).sum()), borders + len(places)
        last = inspect_clip(Clip(clip.frames[-lab.native.frames_max :], clip.fps), lab.inspector)
        colour += last.colour == film.prompt.colour
    most = float(np.mean(worst))
    within = int((np.array(worst) <= STEP).sum())
    return [
        Row(
            f"{lab.options.seconds:g} s: steps at window borders",
            f"largest {most:.2f} × the median ({within} of {len(worst)} within); {above} of {borders} borders above "
            f"the other steps' 95th percentile, {np.mean(usual):.2f} ×",
            f"≤ {STEP:g} ×",
            most <= STEP,
            {"largest": worst, "percentile_95": usual, "above": above, "borders": borders, "colour_at_the_end": colour},
        )
    ]


# ---- ways that are judged by what they show --------------------------------------------------------------------------


def storyboard(lab: Lab) -> list[Row]:
    """Two cards, each a prompt: what is seen in a card's own span, judged by its prompt and by the other's."""
    pairs = list(zip(lab.mixed[::2], lab.mixed[1::2], strict=False))
    own, other, prompts = [], [], []
    cut = round(CARD * lab.native.fps)
    for first, second in lab.each(pairs, "storyboard"):
        cues = (Cue(0.0, first.prompt.text), Cue(CARD, second.prompt.text))
        board = Board(cues, (), 2 * CARD, {})
        clip = lab.generator.storyboard(board, seed=first.prompt.seed, **lab.sampling)
        spans = (clip.frames[:cut], clip.frames[cut:])
        found = [inspect_clip(Clip(span, clip.fps), lab.inspector) for span in spans]
        own += found
        other += found[::-1]
        prompts += [first.prompt, second.prompt]
    return [_followed("storyboard: each card in its own span", prompts, own, lab.alone[: len(prompts)], other)]


def image(lab: Lab) -> list[Row]:
    films = lab.each(lab.mixed, "image")
    made = [lab.generator.image(film.prompt.text, seed=film.prompt.seed, **lab.sampling) for film in films]
    assert all(clip.frames.shape[:3] == (1, *lab.native.size[::-1]) for clip in made)
    found = [inspect_clip(clip, lab.inspector) for clip in made]
    return [_followed("image: prompt followed", [film.prompt for film in lab.mixed], found, lab.alone, [])]


def _followed(
    name: str, prompts: Sequence[Prompt], found: Sequence[Finding], alone: Sequence[Finding], other: Sequence[Finding]
) -> Row:
    """Against videos of the same prompts alone, and against what is found judged by other prompts."""
    here, there, swapped = (count_right(prompts, findings) for findings in (found, alone, other))
    enough = all(here[fact] >= LIKE * there[fact] for fact in FACTS)
    beaten = not other or all(here[fact] > swapped[fact] for fact in FACTS)
    floor = f"; > {_counts(swapped)}, judged by the other card" if other else ""
    return Row(
        name,
        f"{_counts(here)} of {len(prompts)}",
        f"≥ {LIKE:.0%} of a video's of its own, {_counts(there)}{floor}",
        enough and beaten,
        {"right": here, "alone": there, "by_the_other": swapped},
    )


def _counts(facts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in facts.items())


def inpaint(lab: Lab) -> list[Row]:
    """A box around where the thing ever is, under a prompt that names another colour."""
    outside, changes, itself, colour = 0, [], [], 0
    for film in lab.each(lab.movers, "inpaint"):
        old, true = film.prompt.colour, film.clip.frames
        new = "red" if old != "red" else "blue"
        text = film.prompt.text.replace(f"an {old}", f"a {new}").replace(old, new)
        white = box_around(film.thing, margin=8)
        mask = np.repeat(np.uint8(255) * white[..., None], 3, -1)
        made = lab.generator.inpaint(film.clip, text, mask, seed=film.prompt.seed, **lab.sampling)
        outside += bool((made.frames[:, ~white] == true[:, ~white]).all())
        changes.append(distance(made.frames[:, white], true[:, white]))
        itself.append(distance(film.through[:, white], true[:, white]))
        colour += inspect_clip(made, lab.inspector).colour == new
    count, change, least = len(lab.movers), float(np.mean(changes)), float(np.mean(itself))
    return [
        Row(
            "inpaint",
            f"outside exact in {outside} of {count}; inside changed by {change:.1f}; {colour} of the new colour",
            f"all exact; > {least:.1f}, which the autoencoder changes",
            outside == count and change > least,
            {"exact": outside, "changes": changes, "autoencoder": itself, "new_colour": colour},
        )
    ]


WAYS: dict[str, Callable[[Lab], list[Row]]] = {
    way.__name__: way
    for way in (animate, extend, backward, fill, recut, loop, blend, remix, storyboard, long, image, inpaint)
}

if __name__ == "__main__":
    main()
