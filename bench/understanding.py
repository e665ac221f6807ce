"""Are prompts understood that people wrote as they please? 100 for each of four languages (bench/understanding/*.txt).

They were written by hand: synonyms, odd word order, half sentences. The first table asks the rewriter alone: which of
the facts that a prompt states it reads, in all prompts, and apart for those with a word that it does not know. The
second generates a clip of some prompts, as they are, rewritten and, with `--library DIR`, rewritten by what a library's
captions add and begun from its clips where one agrees; it judges what the clips show by networks that never see a
prompt. The same person wrote these prompts and the tables of words; every second prompt (the first, …)
was looked at while the reading was made, the others were not: "unseen" counts those alone. The prompts of
`--development` were written to be looked at, all of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import show_table, write_results
from rich.progress import track

import yozora
from yozora.create import Canvas, Generator
from yozora.create.begin import Begin
from yozora.create.ways import text_to_video
from yozora.evaluate.reading import load_reader, read_clip
from yozora.models.registry import autoencoder_version
from yozora.prompts import Rewriter
from yozora.prompts.library import Library, open_library
from yozora.prompts.retrieval import Similars, warm_start
from yozora.prompts.writer import WorldWriter, load_writer
from yozora.world.words import LANGUAGES, words_of

FOLDER = Path(__file__).parent / "understanding"
DEVELOPMENT = FOLDER / "development"
FACTS = ("colour", "shape", "motion", "direction", "ground")
SHOWN = ("colour", "shape", "direction", "ground")  # what is judged in clips
WAYS = ("as it is", "rewritten", "with retrieval")


@dataclass(frozen=True)
class FreePrompt:
    """What somebody wrote, and the facts in it."""

    language: str
    text: str
    facts: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="How well prompts in anybody's words are understood.")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--rewriter", type=Path, help="a folder that `yozora train rewriter` wrote")
    parser.add_argument(
        "--clips", type=int, default=100, help="prompts of each language that clips are made of; 0: none"
    )
    parser.add_argument("--development", action="store_true", help="the prompts by which words are added, instead")
    parser.add_argument("--library", type=Path, help="clips of the world, for a third way: with retrieval")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--solver")
    options = parser.parse_args()
    writer = load_writer(options.rewriter) if options.rewriter else load_writer()
    folder = DEVELOPMENT if options.development else FOLDER
    prompts = {language: read_prompts(language, folder) for language in LANGUAGES}
    results: dict[str, Any] = {"settings": {name: str(value) for name, value in vars(options).items()}}
    results["read"] = read_all(prompts, writer)
    if options.clips:
        generator = yozora.load(options.model)
        some = {language: spread(listed, options.clips) for language, listed in prompts.items()}
        results["clips"] = film_all(generator, some, Rewriter(writer), options)
    write_results("understanding", results)


def read_prompts(language: str, folder: Path = FOLDER) -> list[FreePrompt]:
    """The prompts of a language: `colour shape motion direction ground | text` a line, "-" for what is unsaid."""
    prompts = []
    for line in (folder / f"{language}.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            said, _, text = line.partition(" | ")
            named = zip(FACTS, said.split(), strict=True)
            prompts.append(FreePrompt(language, text, {name: value for name, value in named if value != "-"}))
    return prompts


def spread(prompts: Sequence[FreePrompt], count: int) -> list[FreePrompt]:
    """`count` of them, evenly spread."""
    return [prompts[n * len(prompts) // count] for n in range(min(count, len(prompts)))]


def read_all(prompts: dict[str, list[FreePrompt]], writer: WorldWriter) -> dict[str, Any]:
    """What the rewriter writes down of each prompt; prints the table."""
    rows, block, started = [], {}, time.perf_counter()
    for language, listed in prompts.items():
        right: dict[str, list[bool]] = {
            name: [] for name in (*FACTS, "all", "all, new words", "all, known words", "all, unseen")
        }
        for number, prompt in enumerate(listed):
            facts, _ = writer.read(prompt.text)
            fits = {name: facts.get(name) == value for name, value in prompt.facts.items()}
            for name, fit in fits.items():
                right[name].append(fit)
            new = any(not writer.reader.knows(word, prompt.language) for word in words_of(prompt.text))
            right["all"].append(all(fits.values()))
            right[f"all, {'new' if new else 'known'} words"].append(all(fits.values()))
            if number % 2:
                right["all, unseen"].append(all(fits.values()))
        block[language] = {name: {"right": sum(of), "asked": len(of)} for name, of in right.items()}
        rows.append(
            [language, *(f"{100 * sum(of) / max(1, len(of)):.0f} % ({sum(of)}/{len(of)})" for of in right.values())]
        )
    show_table("facts read by the rewriter", ["", *FACTS, "all", "all, new words", "all, known", "all, unseen"], rows)
    count = sum(map(len, prompts.values()))
    return block | {"seconds_a_prompt": round((time.perf_counter() - started) / count, 3)}


def film_all(
    generator: Generator, prompts: dict[str, list[FreePrompt]], rewriter: Rewriter, options: argparse.Namespace
) -> dict[str, Any]:
    """A clip of each prompt in each way, judged; prints the table."""
    reader, records, shelf = load_reader(), [], Shelf.of(generator, options, rewriter)
    ways = WAYS if shelf else WAYS[:2]
    everything = [prompt for listed in prompts.values() for prompt in listed]
    for seed, prompt in enumerate(track(everything, description="clips")):
        rewritten = rewriter.rewrite(prompt.text)
        record: dict[str, Any] = {"language": prompt.language, "prompt": prompt.text, "asked": prompt.facts}
        record |= {"text": rewritten.text, "warning": rewritten.warning}
        canvases: dict[str, tuple[Canvas, Begin | None]] = {
            way: (text_to_video(text, native=generator.native), None)
            for way, text in zip(WAYS[:2], (prompt.text, rewritten.text), strict=True)
        }
        if shelf:
            canvases[WAYS[2]] = shelf.look_up(prompt.text, generator)
        for way, (canvas, begin) in canvases.items():
            (clip,) = generator.run_many(canvas, [seed], steps=options.steps, solver=options.solver, begin=begin)
            reading = read_clip(clip, reader)
            found = {name: getattr(reading.finding, name) for name in ("colour", "shape", "direction")}
            record[way] = found | {"ground": reading.names["ground"], "text": canvas.prompt}
            record[way] |= {"source": begin.source if begin else ""}
        records.append(record)
    rows, block = [], {}
    for language in prompts:
        own = [record for record in records if record["language"] == language]
        for way in ways:
            row = {name: followed(own, way, (name,)) for name in SHOWN} | {"all": followed(own, way, SHOWN)}
            block.setdefault(language, {})[way] = {name: {"right": r, "asked": n} for name, (r, n) in row.items()}
            cells = [f"{100 * r / max(1, n):.0f} % ({r}/{n})" for r, n in row.values()]
            rows.append([f"{language}, {way}", *cells])
    show_table(f"shown in clips of {generator.bundle.name}", ["", *SHOWN, "all"], rows)
    return block | {"records": records}


@dataclass(frozen=True)
class Shelf:
    """A library of clips, and a rewriter that fills prompts in with it."""

    library: Library
    rewriter: Rewriter
    version: str

    @classmethod
    def of(cls, generator: Generator, options: argparse.Namespace, rewriter: Rewriter) -> Shelf | None:
        if options.library is None:
            return None
        library = open_library(options.library)
        return cls(library, Rewriter(rewriter.engine, Similars(library)), autoencoder_version(options.model))

    def look_up(self, prompt: str, generator: Generator) -> tuple[Canvas, Begin | None]:
        """A prompt filled in, and what it may be begun from."""
        canvas = text_to_video(self.rewriter.rewrite(prompt).text, native=generator.native)
        return canvas, warm_start(self.library, canvas, generator, self.version).begin


def followed(records: Sequence[dict[str, Any]], way: str, names: Sequence[str]) -> tuple[int, int]:
    """In how many clips every one of these facts is shown that its prompt states, and how many state any."""
    asked = [[name for name in names if name in record["asked"]] for record in records]
    right = [all(r[way][n] == r["asked"][n] for n in own) for r, own in zip(records, asked, strict=True) if own]
    return sum(right), len(right)


if __name__ == "__main__":
    main()
