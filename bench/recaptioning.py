"""What dense captions teach: the same network from nothing, told of the same clips in a few words or in many.

Both runs are asked with short and with dense prompts of held-out scenes of one thing; colour and shape are judged as in
bench/prompt_following.py, and the held-out loss is under short prompts. Interrupt it at any time: the same command
goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from common import show_table, write_results
from from_nothing import LESSONS, ROOT, Bench
from rich.progress import track

import yozora
from yozora.evaluate import Prompt, following_prompts, inspect_clip, load_inspector, score
from yozora.world import describe

MIXES = {"short": "{ short = 1.0 }", "dense": "{ dense = 1.0 }", "both": "{ short = 0.5, dense = 0.5 }"}
FACTS = ("colour", "shape")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--config", type=Path, default=LESSONS)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=4096, help="in the pool, which is rendered first")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "recaptioning", help="where the runs are kept")
    options = parser.parse_args()

    bench = Bench(options.runs, options.config, [*options.overrides, "languages={ en = 1.0 }"], options.clips)
    bench.build_pool()
    short = following_prompts(options.prompts)
    asked = {"short": short, "dense": [dense(prompt) for prompt in short]}
    inspector, rows, results = load_inspector(), [], {}
    for name, details in MIXES.items():
        trained = bench.train(name, options.steps, [f"details={details}"])
        generator, row = yozora.load(trained.model), [name, f"{trained.loss:.4f}"]
        results[name] = {"loss": trained.loss, "minutes": trained.minutes}
        for form, prompts in asked.items():
            made = [generator.generate(p.text, seed=p.seed) for p in track(prompts, description=f"{name}, {form}")]
            scores = score(prompts, [inspect_clip(clip, inspector) for clip in made])
            row += [str(scores[fact]) for fact in FACTS]
            results[name][form] = {fact: scores[fact].percent for fact in FACTS}
        rows.append(row)
    columns = ["told", "held-out loss", *(f"{fact}, asked {form}" for form in asked for fact in FACTS)]
    show_table(f"{options.steps} steps from nothing, by what was told; {options.prompts} prompts", columns, rows)
    write_results("recaptioning", {"steps": options.steps, "prompts": options.prompts, "told": results})


def dense(prompt: Prompt) -> Prompt:
    """The same scene, described in full."""
    return dataclasses.replace(prompt, text=describe(prompt.scene, "en", "dense", seed=0))


if __name__ == "__main__":
    main()
