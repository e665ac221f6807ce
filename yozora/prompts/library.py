"""A library of clips to look things up in: captions, what they mean, and the clips' latents, in a folder of LanceDB's.

Search is by meaning (cosine of sentence embeddings): exact while the library is small, by an index of nearest
neighbours once it is large. A library belongs to one version of one model's autoencoder, since latents of another mean
other pictures: `check_latents` says whether they may be used; its captions always may.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yozora.errors import ConfigError, YozoraError
from yozora.models.folder import read_json, write_json
from yozora.prompts.lance import LOCK, connect, explained, locked
from yozora.prompts.nearest import embed, load_embedder
from yozora.world.words.seen import FACTS

NOTE, TABLE = "library.json", "clips"
FORMAT = 1
WIDTH = 384  # of a sentence embedding
LOOK = (2, 2, 2)  # moments, rows and columns that latents are averaged to, for finding clips that look alike
INDEX_FROM = 50_000  # clips: below, every one is compared
STALE = 0.2  # of a large library's clips that may be outside its index before that is made anew
PROBES, REFINE = 40, 20  # parts of an index that are looked into; how many times more are compared exactly than asked
MEASURED = 16  # clips that look alike whose latents are compared in full
FRAGMENT = 32  # bits by which a row's number tells the file that it lies in
MOVED = 0.12  # of the rows of a file that must be gone for LanceDB to write it anew, with something to spare (0.1)
SHOWN = ("source", "caption", "facts", "width", "height", "frames", "fps")


@dataclass(frozen=True, eq=False)
class Entry:
    """A clip as it is put into a library. `source` names it, once in a library; `origin` is the file (or scene) that it
    is a part of, and `mark` tells that origin's versions apart. latents: float16 `[C, T, h, w]` of a clip of `size`
    (width, height). facts: named as in `yozora.world.describe.FACTS`; what is not known is left out."""

    source: str
    origin: str
    mark: str
    caption: str
    latents: Tensor
    size: tuple[int, int]
    frames: int
    fps: float
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """A clip that was found. similarity: the cosine of its caption's meaning and the query's, -1..1."""

    source: str
    caption: str
    facts: dict[str, str]
    similarity: float
    size: tuple[int, int]
    frames: int
    fps: float


@dataclass(frozen=True)
class Copy:
    """The clip that a video is most like, and how far it is from it: the root mean square of the difference of their
    latents, over that of the clip's. 0 is a copy; two clips of which neither knows the other are about 1.4 apart."""

    source: str
    distance: float


@dataclass(frozen=True)
class Stats:
    """What there is in a library."""

    clips: int
    model: str
    version: str
    sizes: dict[str, int]
    indexed: bool
    bytes: int


class Library:
    """See `open_library` and `create_library`."""

    def __init__(self, folder: Path, note: Mapping[str, Any]) -> None:
        self.folder, self.model, self.version = folder, note["model"], note["version"]
        self.look_width: int = note["look"]
        with explained(folder):
            self._table = connect(folder).open_table(TABLE)

    def __len__(self) -> int:
        with self._using():
            return self._table.count_rows()

    def check_latents(self, version: str) -> str:
        """Why the latents of this library are of no use to the autoencoder of a version (see
        `yozora.models.registry.autoencoder_version`); "" where they are."""
        if version == self.version:
            return ""
        return (
            f"{self.folder} was made with another version of an autoencoder (of {self.model}): only its captions count"
        )

    def search(self, text: str, count: int = 5, where: Mapping[str, str] | None = None) -> list[Match]:
        """The `count` clips whose captions are nearest in meaning to `text`, the nearest first; of those whose facts
        are as in `where`, if that is given. Raises ConfigError."""
        return self.search_vector(embed_texts([text])[0], count, where)

    def search_vector(
        self, vector: np.ndarray, count: int = 5, where: Mapping[str, str] | None = None, exact: bool = False
    ) -> list[Match]:
        """As `search`, for an embedding float32 `[384]`; `exact`: without the index."""
        if count < 1:
            raise ConfigError(f"{count} clips cannot be searched for: use 1 or more")
        with self._using():
            query = self._nearest(vector, "embedding", "cosine", exact)
            if where:
                query = query.where(_condition(where), prefilter=True)
            rows = query.select([*SHOWN, "_distance"]).limit(count).to_list()
        return [_match(row) for row in rows]

    def latents(self, source: str) -> Tensor:
        """The latents of a clip, float16 `[C, T, h, w]`. Raises ConfigError where there is none of that name."""
        found = self.read([source])
        if source not in found:
            raise self._missing(source)
        return found[source]

    def read(self, sources: Sequence[str]) -> dict[str, Tensor]:
        """The latents of clips, float16 `[C, T, h, w]`, by their names; of those that there are."""
        with self._using():
            query = self._table.search().where(_among("source", sources)).select(["source", "shape", "latents"])
            rows = query.limit(len(sources)).to_list()
        return {row["source"]: _unpacked(row["latents"], row["shape"]) for row in rows}

    def match(self, source: str) -> Match:
        """What is known of a clip, as if it had been searched for by its name. Raises ConfigError where there is
        none."""
        with self._using():
            rows = self._table.search().where(_among("source", [source])).select([*SHOWN]).limit(1).to_list()
        if not rows:
            raise self._missing(source)
        return _match(rows[0])

    def nearest_copy(self, latents: Tensor) -> Copy | None:
        """Which clip `latents` `[C, T, h, w]` are nearest to, among the MEASURED that look most alike and are of the
        same shape; None where there is none."""
        shape = "x".join(map(str, latents.shape))
        with self._using():
            query = self._nearest(look_of(latents).numpy(), "look", "l2", exact=False)
            query = query.where(f"shape = '{shape}'", prefilter=True).select(["source", "_distance"])
            alike = [row["source"] for row in query.limit(MEASURED).to_list()]
        if not alike:
            return None
        distances = {source: copy_distance(latents, other) for source, other in self.read(alike).items()}
        source = min(distances, key=distances.__getitem__)
        return Copy(source, distances[source])

    def marks(self) -> dict[str, str]:
        """Every origin that it has clips of, and the mark of the version that they are of."""
        with self._using():
            rows = self._table.search().select(["origin", "mark"]).to_arrow()
        return dict(zip(rows["origin"].to_pylist(), rows["mark"].to_pylist(), strict=True))

    def add(self, entries: Sequence[Entry]) -> None:
        """Puts clips in, all of them or none; those of an origin that was there go out. Raises ConfigError."""
        if not entries:
            return
        import pyarrow

        meanings = embed_texts([entry.caption for entry in entries])
        rows = [_row(entry, meaning) for entry, meaning in zip(entries, meanings, strict=True)]
        with self._using(alone=True):  # two that put in the same at once would both find that it is not there
            table = pyarrow.Table.from_pylist(rows, schema=_schema(self.look_width))
            gone = _among("origin", {entry.origin for entry in entries})
            merge = self._table.merge_insert("source").when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(gone).execute(table)

    def remove(self, pattern: str) -> int:
        """Takes out the clips whose source is `pattern`, in which * and ? stand for any, and off the disk; returns how
        many there were. Raises ConfigError."""
        meant = re.compile("".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern), re.DOTALL)
        with self._using(alone=True):
            rows = self._table.search().with_row_id(True).select(["source", "_rowid"]).to_arrow()
            at = list(zip(rows["source"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
            out = {source: row for source, row in at if source == pattern or meant.fullmatch(source)}
            self._move({row for _, row in at}, {row for source, row in at if source in out})
            gone = list(out)
            for start in range(0, len(gone), 1000):
                self._table.delete(_among("source", gone[start : start + 1000]))
            with warnings.catch_warnings():  # also where nothing is gone: what was broken off is brought to its end
                warnings.simplefilter("ignore")  # that others who read it now would fail: there are none
                self._table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
        return len(gone)

    def _move(self, rows: set[int], out: set[int]) -> None:
        """Writes so many of the other rows of the files with rows that go `out` elsewhere that these files are written
        anew when they are next joined, without what is gone: of fewer LanceDB only notes that they are."""
        for file in {row >> FRAGMENT for row in out}:
            own = sorted(row for row in rows - out if row >> FRAGMENT == file)
            if own:
                last = own[int(MOVED * len(own))]
                between = ", ".join(str(row) for row in sorted(out) if own[0] < row < last)
                where = f"_rowid >= {own[0]} AND _rowid <= {last}" + (
                    f" AND _rowid NOT IN ({between})" if between else ""
                )
                self._table.update(where, values_sql={"source": "source"})

    def tidy(self) -> None:
        """Joins what came in small parts, and makes or renews the index of a large library. Run after adding."""
        with self._using(alone=True):  # or what others put in meanwhile breaks it off
            self._table.optimize()
        with self._using():
            clips = self._table.count_rows()
            if clips < INDEX_FROM:
                return
            from lancedb.index import IvfPq

            metrics: dict[str, Literal["cosine", "l2"]] = {"embedding": "cosine", "look": "l2"}
            for column, metric in metrics.items():
                if self._unindexed(column) > STALE * clips:
                    self._table.create_index(
                        column, config=IvfPq(distance_type=metric, num_sub_vectors=_parts(self, column))
                    )

    def stats(self) -> Stats:
        """What there is in it."""
        with self._using():
            rows = self._table.search().select(["width", "height", "frames"]).to_arrow().to_pylist()
            indexed = self._unindexed("embedding") < len(rows)
        sizes: dict[str, int] = {}
        for row in rows:
            name = f"{row['width']}x{row['height']}, {row['frames']} frames"
            sizes[name] = sizes.get(name, 0) + 1
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return Stats(len(rows), self.model, self.version, dict(sorted(sizes.items())), indexed, size)

    @contextmanager
    def _using(self, alone: bool = False) -> Iterator[None]:
        """The library as it is by now, whoever has changed it. Others read meanwhile, unless it is had `alone`,
        as it is where something is changed."""
        with explained(self.folder), locked(self.folder, alone):
            self._table.checkout_latest()
            yield

    def _missing(self, source: str) -> ConfigError:
        return ConfigError(f"{self.folder} has no clip {source[:120]!r}: `yozora library search` shows what it has")

    def _nearest(self, vector: np.ndarray, column: str, metric: str, exact: bool) -> Any:
        """A query for what is nearest to a vector."""
        query = self._table.search(vector.astype(np.float32), vector_column_name=column).distance_type(metric)
        return query.bypass_vector_index() if exact else query.nprobes(PROBES).refine_factor(REFINE)

    def _unindexed(self, column: str) -> int:
        """Clips that no index knows of."""
        for index in self._table.list_indices():
            if index.columns == [column] and (said := self._table.index_stats(index.name)):
                return said.num_unindexed_rows
        return self._table.count_rows()


def open_library(folder: str | Path) -> Library:
    """The library in a folder. Raises ConfigError, YozoraError where what it needs is not installed."""
    folder = Path(folder)
    if not (folder / NOTE).is_file():
        raise ConfigError(f"there is no library at {folder}: `yozora library add` makes one")
    note = read_json(folder / NOTE)
    kinds = {"model": str, "version": str, "look": int}
    if note.get("format") != FORMAT or any(not isinstance(note.get(name), kind) for name, kind in kinds.items()):
        raise ConfigError(f"{folder / NOTE} is of no library that this version reads: make it again in another folder")
    return Library(folder, note)


def create_library(folder: str | Path, model: str, version: str, channels: int) -> Library:
    """A new, empty library for clips of a model whose latents have so many channels (or the one that another has made
    there meanwhile); `version`: see `Library.check_latents`. What clips there are in the folder stay: it must hold
    none. Raises ConfigError."""
    folder = Path(folder)
    width = channels * int(np.prod(LOOK))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()} - {LOCK}
        if there and f"{TABLE}.lance" not in there:
            raise ConfigError(f"{folder} holds something that is no library: name another folder")
        with explained(folder), locked(folder, alone=True):
            if (folder / NOTE).exists():  # by another, meanwhile
                return open_library(folder)
            database = connect(folder)
            if (folder / f"{TABLE}.lance").exists() and database.open_table(TABLE).count_rows():
                raise ConfigError(
                    f"{folder} holds clips, but no {NOTE} that says which model they belong to: name another "
                    f"folder, or put its {NOTE} back"
                )
            database.create_table(TABLE, schema=_schema(width), mode="overwrite")
            # the note comes last: a folder with one is a whole library
            write_json(folder / NOTE, {"format": FORMAT, "model": model, "version": version, "look": width})
    except OSError as error:
        raise ConfigError(f"cannot write {folder} ({error.strerror or error}); name another folder") from None
    return open_library(folder)


def embed_texts(texts: Sequence[str]) -> np.ndarray:
    """Texts → float32 `[N, 384]`, of length 1 each. Raises YozoraError where the embeddings are not installed."""
    model = load_embedder()
    if model is None:
        raise YozoraError("a library needs sentence embeddings: pip install 'yozora[understand]'")
    return embed(model, texts)


def look_of(latents: Tensor) -> Tensor:
    """Latents `[C, T, h, w]` averaged to a few moments and places: float32 `[C · 8]`."""
    return F.adaptive_avg_pool3d(latents.float(), LOOK).flatten()


def copy_distance(made: Tensor, other: Tensor) -> float:
    """How far latents are from others of the same shape, over the size of these: see `Copy`."""
    made, other = made.float(), other.float()
    return float((made - other).square().mean().sqrt() / other.square().mean().sqrt().clamp_min(1e-6))


# ---- rows ------------------------------------------------------------------------------------------------------------


def _schema(look: int) -> Any:
    import pyarrow as pa

    facts = pa.struct([(name, pa.string()) for name in FACTS])
    whole = dict.fromkeys(("width", "height", "frames"), pa.int32())
    texts = dict.fromkeys(("source", "origin", "mark", "caption", "shape"), pa.string())
    vectors = {"embedding": pa.list_(pa.float32(), WIDTH), "look": pa.list_(pa.float32(), look)}
    columns = texts | whole | {"fps": pa.float64(), "facts": facts, "latents": pa.large_binary()} | vectors
    return pa.schema(list(columns.items()))


def _row(entry: Entry, meaning: np.ndarray) -> dict[str, Any]:
    latents = entry.latents.to("cpu", torch.float16).contiguous()
    return {
        **{name: getattr(entry, name) for name in ("source", "origin", "mark", "caption", "frames", "fps")},
        "width": entry.size[0],
        "height": entry.size[1],
        "facts": {name: entry.facts.get(name) for name in FACTS},
        "shape": "x".join(map(str, latents.shape)),
        "latents": latents.numpy().tobytes(),
        "embedding": meaning,
        "look": look_of(latents).numpy(),
    }


def _match(row: Mapping[str, Any]) -> Match:
    facts = {name: value for name, value in row["facts"].items() if value is not None}
    size = (row["width"], row["height"])
    similarity = 1 - float(row.get("_distance", 0.0))
    return Match(row["source"], row["caption"], facts, similarity, size, row["frames"], row["fps"])


def _unpacked(stored: bytes, shape: str) -> Tensor:
    numbers = np.frombuffer(stored, np.float16).reshape(tuple(map(int, shape.split("x"))))
    return torch.from_numpy(numbers.copy())


def _condition(where: Mapping[str, str]) -> str:
    """Facts as a condition of SQL. Raises ConfigError for a name that is none."""
    for name in where:
        if name not in FACTS:
            raise ConfigError(f"there is no fact {name[:40]!r}; there are {', '.join(FACTS)}")
    return " AND ".join(f"facts.{name} = {_quoted(value)}" for name, value in where.items())


def _among(column: str, values: Sequence[str] | set[str]) -> str:
    return f"{column} IN ({', '.join(map(_quoted, values))})"


def _quoted(text: str) -> str:
    """A string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _parts(library: Library, column: str) -> int:
    """Into how many parts an index cuts a vector: of eight numbers each."""
    return (WIDTH if column == "embedding" else library.look_width) // 8
