"""What is a library worth? How quickly and rightly clips are found, and what warm starts save and cost.

`--vectors 1000 100000 1000000` searches among made-up vectors of a sentence embedding's size, exactly and by the index
that the library makes. `--library DIR` asks a library of the world for clips in other words than their captions', and
makes videos in five ways: without it; prompts filled in (a); clips shown to the model beside the prompt (b, of a model
that was trained so, see `yozora train retrieval`); begun from a close clip (c); all of these. Each is judged by the
inspector, which sees no prompt. What a video costs is counted in passes: clips that the transformer is asked about, of
which a step with guidance takes two. Intervals: 95 %, by drawing the prompts anew a thousand times.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import torch
from common import show_table, write_results
from rich.progress import track
from understanding import read_prompts, spread

import yozora
from yozora.create import Generator
from yozora.create.begin import SHARE, Begin
from yozora.create.beside import Beside
from yozora.create.ways import text_to_video
from yozora.evaluate import following_prompts
from yozora.evaluate.following import Prompt
from yozora.evaluate.reading import load_reader, read_clip
from yozora.models.registry import autoencoder_version
from yozora.prompts import load_rewriter
from yozora.prompts.library import TABLE, WIDTH, Library, copy_distance, create_library, open_library
from yozora.prompts.retrieval import clips_beside, coder_of, read_facts, search_by_facts, warm_start
from yozora.world.describe import facts
from yozora.world.words.partial import tell_facts

WAYS = {  # prompts filled in, clips shown, begun from one
    "none": (False, False, False),
    "a: filled in": (True, False, False),
    "b: shown": (False, True, False),
    "c: warm": (False, False, True),
    "all": (True, True, True),
}
JUDGED = ("colour", "shape", "direction", "ground")
CHANNELS = 4
PART = 50_000  # vectors written at a time
QUERIES = 100  # that are made of them, at most
DONE = "queries.npz"  # is written once a library of vectors is whole


@dataclass(frozen=True)
class Asked:
    """A prompt, and what a clip of it must show."""

    text: str
    facts: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a library of clips is worth.")
    parser.add_argument("--vectors", type=int, nargs="*", default=[], help="how many to search among")
    parser.add_argument("--library", type=Path, help="a library of clips of the world")
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--queries", type=int, default=100, help="how many searches among vectors")
    parser.add_argument("--kept", type=Path, help="where libraries of vectors are kept: what is there is not made anew")
    parser.add_argument("--captions", type=int, default=200, help="clips asked for in other words; 0: none")
    parser.add_argument("--prompts", type=int, default=32, help="free-form English prompts; 0: none")
    parser.add_argument("--plain", type=int, default=32, help="held-out captions as prompts; 0: none")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), help="which, of the table's rows")
    parser.add_argument("--retrieval-guidance", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--name", default="library", help="of the JSON file")
    options = parser.parse_args()
    results: dict[str, Any] = {"settings": {name: str(value) for name, value in vars(options).items()}}
    if options.vectors:
        results["vectors"] = [search_vectors(count, options.queries, options.kept) for count in options.vectors]
        show_vectors(results["vectors"])
    if options.library:
        library = open_library(options.library)
        if options.captions:
            results["captions"] = search_captions(library, options.captions)
        generator = yozora.load(options.model)
        free = [Asked(each.text, each.facts) for each in spread(read_prompts("en"), options.prompts)]
        plain = [Asked(each.text, each.facts | stated_ground(each)) for each in following_prompts(options.plain)]
        ways = [way for way in WAYS if way == "none" or way in options.ways]
        if generator.bundle.retrieval is None:
            ways = [way for way in ways if way != "b: shown"]
            print(f"{generator.bundle.name} cannot be shown clips: b is left out, and all is a and c")
        for name, prompts in (("free-form", free), ("held-out", plain)):
            if prompts:
                results[name] = film_all(generator, library, prompts, ways, options, name)
    write_results(options.name, results)


def stated_ground(prompt: Prompt) -> dict[str, str]:
    """The ground of a scene's caption, where it states one."""
    return {"ground": facts(prompt.scene)["ground"]} if "ground" in read_facts(prompt.text) else {}


# ---- search ----------------------------------------------------------------------------------------------------------


def search_vectors(count: int, asked: int, kept: Path | None) -> dict[str, Any]:
    """Queries that are stored vectors with noise: how long an answer takes, and how often it is the nearest."""
    with tempfile.TemporaryDirectory() as folder:
        place = kept / str(count) if kept else Path(folder)
        if not (place / DONE).exists():
            place.mkdir(parents=True, exist_ok=True)
            np.savez(place / DONE, **make_vectors(place, count))
        made = np.load(place / DONE)
        library, some = open_library(place), made["queries"][:asked]
        exact, slow = _timed(library, some, exact=True)
        found, quick = _timed(library, some, exact=False)
    right = float(np.mean([a == b for a, b in zip(found, exact, strict=True)]))
    size = {"vectors": count, "queries": len(some), "index_cpu_seconds": float(made["seconds"]), "recall@1": right}
    return size | {"exact": slow, "searched": quick, "indexed": count >= 50_000}


def make_vectors(place: Path, count: int) -> dict[str, Any]:
    """A library of made-up vectors with its index; QUERIES of them with as much noise as they have length, and the
    processor's seconds that the index took."""
    random, queries = np.random.default_rng(count), []
    library = create_library(place, "made up", "1", CHANNELS)
    table = lancedb.connect(place).open_table(TABLE)
    for start in range(0, count, PART):
        vectors = _unit(random.standard_normal((min(PART, count - start), WIDTH)).astype(np.float32))
        noise = random.standard_normal((QUERIES, WIDTH)).astype(np.float32) / WIDTH**0.5
        queries.append(_unit(vectors[:QUERIES] + noise[: len(vectors)]))
        table.add(_rows(table.schema, vectors, start))
    library, clock = open_library(place), Stopwatch()
    with clock:
        library.tidy()
    return {"queries": np.concatenate(queries)[:: len(queries)][:QUERIES], "seconds": clock.cpu[0] / 1000}


def _timed(library: Library, queries: np.ndarray, exact: bool) -> tuple[list[str], dict[str, float]]:
    """The nearest of each, and how long one takes."""
    library.search_vector(queries[0], 1, exact=exact)
    found, clock = [], Stopwatch()
    for query in queries:
        with clock:
            match = library.search_vector(query, 1, exact=exact)[0]
        found.append(match.source)
    return found, clock.said()


def _rows(schema: pa.Schema, vectors: np.ndarray, start: int) -> pa.Table:
    """Rows of nothing but vectors."""
    count, names = len(vectors), [str(start + n) for n in range(len(vectors))]
    columns: list[Any] = []
    for column in schema:
        if column.name == "embedding":
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH))
        elif column.name == "look":
            flat = np.ascontiguousarray(vectors[:, : column.type.list_size]).ravel()
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), column.type.list_size))
        elif column.name in ("source", "origin"):
            columns.append(pa.array(names))
        elif column.name in ("width", "height", "frames"):
            columns.append(pa.array(np.full(count, 64, np.int32)))
        elif column.name == "fps":
            columns.append(pa.array(np.full(count, 8.0)))
        elif column.name == "facts":
            columns.append(pa.array([{}] * count, column.type))
        else:
            columns.append(pa.nulls(count, column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def show_vectors(blocks: Sequence[dict[str, Any]]) -> None:
    rows = []
    for block in blocks:
        built = f"{block['index_cpu_seconds']:.0f} s" if block["indexed"] else "-"
        times = [f"{block[how]['median_ms']:.1f} ({block[how]['cpu_ms']:.1f})" for how in ("exact", "searched")]
        rows.append([f"{block['vectors']:,}", *times, f"{100 * block['recall@1']:.1f} %", built])
    columns = ["vectors", "one by one: ms (of CPU)", "as the library searches", "recall@1", "CPU for the index"]
    show_table("search among made-up vectors", columns, rows)


def search_captions(library: Library, count: int) -> dict[str, Any]:
    """Clips of the world asked for by a dense caption of their facts, not the one that they are stored with: is the
    clip the first that is found, among the first five, or is the first of the same count, shape, colour and motion?"""
    wanted = ("count", "shape", "colour", "motion", "direction")
    rows = lancedb.connect(library.folder).open_table(TABLE).search().select(["source", "facts"]).to_list()
    block: dict[str, Any] = {"clips": len(library)}
    shown = []
    searches = {"by meaning alone": library.search, "by facts and meaning": partial(search_by_facts, library)}
    for name, search in searches.items():
        right = among = alike = 0
        clock = Stopwatch()
        for number, row in enumerate(rows[:: max(1, len(rows) // count)][:count]):
            facts = {name: value for name, value in row["facts"].items() if value is not None}
            text = tell_facts(facts, "en", "dense", seed=number)
            with clock:
                found = search(text, 5)
            right += found[0].source == row["source"]
            among += any(match.source == row["source"] for match in found)
            alike += all(found[0].facts.get(name) == facts.get(name) for name in wanted)
        asked = len(clock.wall)
        block[name] = {"asked": asked, "right": right, "among 5": among, "alike": alike, **clock.said()}
        shares = [f"{100 * part / asked:.0f} %" for part in (right, among, alike)]
        shown.append([name, *shares, f"{clock.said()['cpu_ms']:.0f} ms"])
    columns = ["", "recall@1", "recall@5", "the same facts", "CPU, with embedding"]
    show_table(f"{count} of {len(library)} clips asked for in other words", columns, shown)
    return block


class Stopwatch:
    """Milliseconds of each of many tries: on the clock, and of the processor, which other programs do not lengthen."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __enter__(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall.append(1000 * (time.perf_counter() - self.begun[0]))
        self.cpu.append(1000 * (time.process_time() - self.begun[1]))

    def said(self) -> dict[str, float]:
        return {"median_ms": float(np.median(self.wall)), "cpu_ms": float(np.mean(self.cpu))}


# ---- videos ----------------------------------------------------------------------------------------------------------


def film_all(
    generator: Generator,
    library: Library,
    prompts: Sequence[Asked],
    ways: Sequence[str],
    options: argparse.Namespace,
    name: str,
) -> dict[str, Any]:
    """Every prompt in every way with every seed; prints the table."""
    filming = Filming(generator, library, options)
    records = [filming.film(prompt, way) for prompt in track(prompts, description=name) for way in ways]
    block, rows = {}, []
    for way in ways:
        own = [record for record in records if record["way"] == way]
        base = [record for record in records if record["way"] == ways[0]]
        said = summary(own, base)
        block[way] = said
        low, high = said["difference"]
        rows.append(
            [
                way,
                f"{100 * said['followed']:.1f} %",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
                f"{said['begun']}/{len(own)}",
                f"{said['passes']:.2f} (-{100 * said['saved']:.0f} %, of those {100 * said['saved_where']:.0f} %)",
                f"{said['diversity']:.2f}",
                f"{said['distance']:.2f} ({said['least']:.2f})",
            ]
        )
    rows += [[way, "no weights", *["-"] * 5] for way in WAYS if way in options.ways and way not in ways]
    columns = ["", "followed", "difference, points", "begun warm", "passes a video (begun warm)", "between seeds"]
    show_table(f"{len(prompts)} {name} prompts, {options.seeds} seeds", [*columns, "nearest clip (least)"], rows)
    return {"ways": block, "records": records}


class Filming:
    """Makes and judges videos; what two ways have in common is made once."""

    def __init__(self, generator: Generator, library: Library, options: argparse.Namespace) -> None:
        self.generator, self.library, self.options = generator, library, options
        self.version = autoencoder_version(options.model)
        self.coder = coder_of(generator, self.version)
        self.rewriters = {filled: load_rewriter(library=library if filled else None) for filled in (False, True)}
        self.reader = load_reader()
        self.made: dict[tuple[str, ...], dict[str, Any]] = {}
        self.passes = 0
        for network in (generator.bundle.transformer, generator.bundle.few_steps):
            if network is not None:  # what is shown clips runs the blocks by itself
                network.blocks[0].register_forward_pre_hook(self._count)

    def _count(self, _block: Any, given: tuple[Any, ...]) -> None:
        self.passes += len(given[0])

    def film(self, prompt: Asked, way: str) -> dict[str, Any]:
        """A prompt in a way: what its clips show, and how far they are from each other and from the library."""
        filled, beside, warm = WAYS[way]
        text = self.rewriters[filled].rewrite(prompt.text).text
        canvas = text_to_video(text, native=self.generator.native)
        start = warm_start(self.library, canvas, self.generator, self.version, self.options.share if warm else 0.0)
        source = start.begin.source if start.begin else ""
        settings = self.generator.settings(self.options.steps, solver=self.options.solver)
        scale = self.options.retrieval_guidance if beside else 0.0
        shown = clips_beside(self.library, canvas, self.generator, settings, self.version, scale).beside
        key = (text, source, *(shown.sources if shown else ()))
        if key not in self.made:
            self.made[key] = self._clips(canvas, start.begin, shown)
        made, steps = self.made[key], settings.steps
        wanted = {name: prompt.facts[name] for name in JUDGED if name in prompt.facts}
        followed = [all(shown[name] == value for name, value in wanted.items()) for shown in made["shown"]]
        record = {"prompt": prompt.text, "text": text, "way": way, "asked": wanted, "source": source, **made}
        record |= {"reason": start.reason, "followed": followed, "steps": steps, "beside": key[2:]}
        return record | {"skipped": start.begin.skipped(steps) if start.begin else 0}

    def _clips(self, canvas: yozora.Canvas, begin: Begin | None, beside: Beside | None) -> dict[str, Any]:
        self.passes, latents = 0, list[torch.Tensor]()
        shown, copies = [], []
        for seed in range(self.options.seeds):
            (clip,) = self.generator.run_many(
                canvas, [seed], steps=self.options.steps, solver=self.options.solver, begin=begin, beside=beside
            )
            reading = read_clip(clip, self.reader)
            seen = {name: getattr(reading.finding, name) for name in JUDGED if name != "ground"}
            shown.append(seen | {"ground": reading.names["ground"]})
            latents.append(self.coder.encode(clip.frames))
            copy = self.library.nearest_copy(latents[-1])
            assert copy is not None
            copies.append({"source": copy.source, "distance": copy.distance})
        between = [copy_distance(a, b) for a, b in combinations(latents, 2)]
        return {"shown": shown, "copies": copies, "between": between, "passes": self.passes / self.options.seeds}


def summary(own: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """The means of a way's records, and the interval of its difference from the first way."""
    followed = np.array([np.mean(record["followed"]) for record in own])
    change = followed - np.array([np.mean(record["followed"]) for record in base])
    random = np.random.default_rng(0)
    drawn = change[random.integers(0, len(change), (1000, len(change)))].mean(1)
    cost, taken = (np.array([record["passes"] for record in each]) for each in (base, own))
    begun = np.array([bool(record["source"]) for record in own])
    distances = [copy["distance"] for record in own for copy in record["copies"]]
    return {
        "followed": float(followed.mean()),
        "difference": [float(np.quantile(drawn, q)) for q in (0.025, 0.975)],
        "begun": int(begun.sum()),
        "shown": sum(bool(record["beside"]) for record in own),
        "passes": float(taken.mean()),
        "saved": float(1 - taken.mean() / cost.mean()),
        "saved_where": float(1 - taken[begun].mean() / cost[begun].mean()) if begun.any() else 0.0,
        "diversity": float(np.mean([d for record in own for d in record["between"]])),
        "distance": float(np.mean(distances)),
        "least": float(np.min(distances)),
    }


if __name__ == "__main__":
    main()
