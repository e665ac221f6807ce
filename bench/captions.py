"""Are captions true, and do they say much? Held-out renders captioned, against what is in them.

Precision: of the facts that captions state, how many are so. Recall: of the facts that are so, how many they state. Of
a thing that goes somewhere, "roll" or "slide" is what it does. Where several things do something, or none does, a scene
has them in an order that nobody can see, so that a caption may begin with any of them (`orders`); "in the scene's own
order" is what a caption comes to that must guess it. `--coded` passes the renders through a model's autoencoder first,
as generated clips are. `--generated N` also captions N clips that `mini` makes of held-out prompts, against what the
inspector finds in them and against what was asked for.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import permutations
from typing import Any

from common import show_table, write_results
from rich.progress import track

import yozora
from yozora.captions.seeing import see
from yozora.captions.world import WorldCaptioner
from yozora.clip import Clip
from yozora.evaluate import following_prompts, inspect_clip, reconstruct
from yozora.train.data import HELD_OUT_SEEDS
from yozora.train.reader import kind_of_motion
from yozora.world import MIXES, Scene, render, sample_scene
from yozora.world.describe import facts

FIRST = 7_000_000
JUDGED = ("shape", "colour", "direction")  # what the inspector names
NAMES = ("shape", "colour", "size", "material", "motion", "direction", "second_shape", "second_colour")
NAMES += ("relation", "ground", "time", "weather", "camera", "style")
KNOWN_BY = ("shape", "colour", "second_shape", "second_colour")  # which of several things is meant
MOST_ORDERED = 3  # things: the orders of more are too many


def main() -> None:
    parser = argparse.ArgumentParser(description="How true and how full captions are.")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument(
        "--first", type=int, default=FIRST, help="of the held-out seeds; by others thresholds are chosen"
    )
    parser.add_argument("--mix", default="simple", choices=sorted(MIXES))
    parser.add_argument("--coded", action="store_true", help="through the autoencoder of mini")
    parser.add_argument("--generated", type=int, default=0, help="clips that mini makes of held-out prompts")
    parser.add_argument("--solver", default="flow-map", help="that these are made by")
    options = parser.parse_args()
    captioner, records = WorldCaptioner(), []
    autoencoder = yozora.load("mini").bundle.autoencoder if options.coded else None
    for number in track(range(options.clips), description="captions"):
        scene = sample_scene(HELD_OUT_SEEDS + options.first + number, MIXES[options.mix])
        clip = Clip(render(scene, 128, 128, 25, 12.0, threads=1).frames, 12.0)
        if autoencoder is not None:
            clip = reconstruct(autoencoder, clip)
        read = see(clip)
        dense = captioner.tell(read).dense if read.facts else ""
        several = orders(scene)
        so = max(several, key=lambda order: agreeing(order, read.facts))
        records.append({"so": so, "own": several[0], "said": read.facts, "dense": dense})
    rows, block = [], {}
    for name in NAMES:
        right, stated, there = counts(records, name)
        block[name] = {"right": right, "stated": stated, "there": there}
        rows.append([name, share(right, stated), share(right, there)])
    right, stated, there = (sum(each[key] for each in block.values()) for key in ("right", "stated", "there"))
    rows.append(["all", share(right, stated), share(right, there)])
    own = [counts([record | {"so": record["own"]} for record in records], name) for name in NAMES]
    right, stated, there = (sum(column) for column in zip(*own, strict=True))
    rows.append(["all, in the scene's own order", share(right, stated), share(right, there)])
    show_table(f"captions of {options.clips} held-out renders ({options.mix})", ["", "precision", "recall"], rows)
    settings: dict[str, Any] = vars(options)
    results: dict[str, Any] = {"settings": settings, "facts": block, "clips": records}
    if options.generated:
        results["generated"] = of_generated(captioner, options.generated, options.solver)
    write_results("captions", results)


def of_generated(captioner: WorldCaptioner, count: int, solver: str) -> dict[str, Any]:
    """What captions of generated clips state, against the inspector and against the prompts; prints the table. Where
    the inspector finds nothing ("") there is nothing to be stated."""
    generator, records = yozora.load("mini"), []
    for seed, prompt in enumerate(track(following_prompts(count), description="generated")):
        clip = generator.generate(prompt.text, seed=seed, solver=solver)
        finding, read = inspect_clip(clip), see(clip)
        found = {name: getattr(finding, name) or "none" for name in JUDGED}
        asked = {name: prompt.facts.get(name, "none") for name in JUDGED}
        records.append({"prompt": prompt.text, "said": read.facts, "inspector": found, "asked": asked})
    block, rows = {}, []
    for against in ("inspector", "asked"):
        own = [{"so": record[against], "said": record["said"]} for record in records]
        if against == "asked":  # a fact that no prompt states is neither right nor wrong
            own = [
                each | {"said": {n: v for n, v in each["said"].items() if each["so"].get(n) != "none"}} for each in own
            ]
        tallies: dict[str, tuple[int, ...]] = {name: counts(own, name) for name in JUDGED}
        tallies["all"] = tuple(sum(each[n] for each in tallies.values()) for n in range(3))
        block[against] = {
            name: dict(zip(("right", "stated", "there"), each, strict=True)) for name, each in tallies.items()
        }
        for name, (right, stated, there) in tallies.items():
            rows.append(
                [
                    f"{name}, against {'the ' if against == 'inspector' else 'what was '}{against}",
                    share(right, stated),
                    share(right, there),
                ]
            )
    show_table(f"captions of {count} generated clips", ["", "precision", "recall"], rows)
    return {"facts": block, "clips": records}


def orders(scene: Scene) -> list[dict[str, str]]:
    """The facts of a scene, told from each of its things on that a caption may begin with: what acts comes first."""
    several = list(permutations(scene.bodies)) if len(scene.bodies) <= MOST_ORDERED else [scene.bodies]
    return [facts(replace(scene, bodies=bodies)) | {"motion": kind_of_motion(scene) or "none"} for bodies in several]


def agreeing(so: dict[str, str], said: dict[str, str]) -> int:
    """How many of the facts by which a thing is known are as said."""
    return sum(so[name] == said[name] for name in KNOWN_BY if name in said)


def counts(records: list[dict[str, Any]], name: str) -> tuple[int, int, int]:
    """Rightly stated, stated, and there to be stated."""
    stated = [record for record in records if name in record["said"]]
    right = sum(record["said"][name] == record["so"][name] for record in stated)
    return right, len(stated), sum(record["so"][name] != "none" for record in records)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part}/{whole})" if whole else "-"


if __name__ == "__main__":
    main()
