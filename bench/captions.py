"""Are captions true, and do they say much? Held-out renders captioned, against what is in them.

Precision: of the facts that captions state, how many are so. Recall: of the facts that are so, how many they state. Of
a thing that goes somewhere, "roll" or "slide" is what it does. `--coded` passes the renders through a model's
autoencoder first, as generated clips are.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import show_table, write_results
from rich.progress import track

import yozora
from yozora.captions.seeing import see
from yozora.captions.world import WorldCaptioner
from yozora.clip import Clip
from yozora.evaluate import reconstruct
from yozora.train.data import HELD_OUT_SEEDS
from yozora.train.reader import kind_of_motion
from yozora.world import MIXES, render, sample_scene
from yozora.world.describe import facts

FIRST_SEED = HELD_OUT_SEEDS + 7_000_000
NAMES = ("shape", "colour", "size", "material", "motion", "direction", "second_shape", "second_colour")
NAMES += ("relation", "ground", "time", "weather", "camera", "style")


def main() -> None:
    parser = argparse.ArgumentParser(description="How true and how full captions are.")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--mix", default="simple", choices=sorted(MIXES))
    parser.add_argument("--coded", action="store_true", help="through the autoencoder of mini")
    options = parser.parse_args()
    captioner, records = WorldCaptioner(), []
    autoencoder = yozora.load("mini").bundle.autoencoder if options.coded else None
    for number in track(range(options.clips), description="captions"):
        scene = sample_scene(FIRST_SEED + number, MIXES[options.mix])
        clip = Clip(render(scene, 128, 128, 25, 12.0, threads=1).frames, 12.0)
        if autoencoder is not None:
            clip = reconstruct(autoencoder, clip)
        read = see(clip)
        dense = captioner.tell(read).dense if read.facts else ""
        so = facts(scene) | {"motion": kind_of_motion(scene) or "none"}
        records.append({"so": so, "said": read.facts, "dense": dense})
    rows, block = [], {}
    for name in NAMES:
        right, stated, there = counts(records, name)
        block[name] = {"right": right, "stated": stated, "there": there}
        rows.append([name, share(right, stated), share(right, there)])
    right, stated, there = (sum(each[key] for each in block.values()) for key in ("right", "stated", "there"))
    rows.append(["all", share(right, stated), share(right, there)])
    show_table(f"captions of {options.clips} held-out renders ({options.mix})", ["", "precision", "recall"], rows)
    settings: dict[str, Any] = vars(options)
    write_results("captions", {"settings": settings, "facts": block, "clips": records})


def counts(records: list[dict[str, Any]], name: str) -> tuple[int, int, int]:
    """Rightly stated, stated, and there to be stated."""
    stated = [record for record in records if name in record["said"]]
    right = sum(record["said"][name] == record["so"][name] for record in stated)
    return right, len(stated), sum(record["so"][name] != "none" for record in records)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % ({part}/{whole})" if whole else "-"


if __name__ == "__main__":
    main()
