"""Footage: real clips and pictures with captions, from a folder or from WebDataset shards, cut to what a model takes.

A clip's captions stand in a text file beside it (`a.mp4`, `a.txt`: one a line), in `a.json`, or in a `captions.jsonl`
or `metadata.jsonl` of its folder, with a line for each file: what such a list does not name is no part of the footage.
In a shard the same parts belong to one key. What cannot be read is left out, counted and named; the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from yozora.clip import open_frames
from yozora.create.given import at_rate, fit_frames
from yozora.create.sizes import Grid, fit_size
from yozora.errors import ConfigError, MediaError
from yozora.train.config import Footage

MEDIA = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".gif")
MEDIA += (".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
LISTS = ("captions.jsonl", "metadata.jsonl")
NAMES = ("file", "file_name")  # of a line's clip
SAID = ("caption", "captions", "text", "short", "dense", "timed")  # and of what is said of it
UNIT = 64  # files of a folder that are encoded, and counted, together
LONGEST = 10_000  # letters of a caption; what has more is no caption
WHOLE = 2**23  # bytes of a file up to which all are read to know it again
SAMPLE, SAMPLES = 2**16, 64  # bytes of a larger one, and at how many places of it, the start and the end among them
SIDE = 32  # sides of what is learned from are multiples of it


class Item(NamedTuple):
    """A file and what is said of it."""

    name: str
    path: Path
    captions: tuple[str, ...]


class Piece(NamedTuple):
    """A part of a clip: uint8 [3, 1 + 4k, H, W], and its line in a pool's index."""

    frames: Tensor
    line: dict[str, Any]


class Skipped(NamedTuple):
    """A file that cannot be learned from, and why."""

    name: str
    reason: str


def units_of(footage: Footage, tell: bool = True) -> list[Sequence[Item] | Path]:
    """What is encoded together, always in the same order: lists of a folder's files, and shards; `tell`: what is left
    out is printed. Raises ConfigError where there is nothing, or nothing is said of a file."""
    path = footage.path
    if path.suffix == ".tar" and path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"there is no folder or .tar of clips at {path}")
    shards = sorted(shard for shard in path.rglob("*.tar") if _is_footage(shard, path))
    listed = None if footage.listed is None else _read_list(footage.listed)
    items = list_folder(path, footage.caption, listed, tell)
    if not shards and not items and listed is not None and uncaptioned(path):
        raise ConfigError(f"nothing is said of any clip in {path}: what the captioner has warned of says why")
    if not shards and not items:
        raise ConfigError(f"there is no clip or picture in {path} ({', '.join(MEDIA[:4])}, … or .tar shards)")
    return [*(items[i : i + UNIT] for i in range(0, len(items), UNIT)), *shards]


def refuse_nothing(footage: Footage, captioner: bool) -> None:
    """Raises ConfigError where there is nothing to learn from, or nothing is said of a file and no `captioner` will."""
    units_of(footage.model_copy(update={"listed": None, "caption": "?"}) if captioner else footage, tell=False)


def pieces_of_shard(shard: Path, footage: Footage, first: int = 0) -> Iterator[list[Piece] | Skipped]:
    """The pieces of each of a shard's clips, from the `first` on."""
    with tempfile.TemporaryDirectory() as folder:
        for item in islice(read_shard(shard, Path(folder), footage.caption), first, None):
            yield item if isinstance(item, Skipped) else cut(item, footage)


def footage_digest(footage: Footage) -> str:
    """A fingerprint of the files, by their names, sizes, their bytes (of large ones samples), and what is said of
    them; so a copy of a folder is the same."""
    digest = hashlib.sha256()
    for unit in units_of(footage, tell=False):  # which is told when they are encoded
        for item in [Item(unit.name, unit, ())] if isinstance(unit, Path) else unit:
            about = item.path.stat()
            changed = about.st_mtime_ns if isinstance(unit, Path) else 0  # of a shard, what changed may lie anywhere
            digest.update(repr((item.name, about.st_size, changed, item.captions)).encode())
            digest.update(_sampled(item.path, about.st_size))
    return digest.hexdigest()


def _sampled(path: Path, size: int) -> bytes:
    """A hash of all of a file, or of parts of a large one: of what cannot be read, nothing, which is said later."""
    digest, step = hashlib.sha256(), max(1, (size - SAMPLE) // (SAMPLES - 1))
    with suppress(OSError), path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return digest.digest()
        for start in (*range(0, step * (SAMPLES - 1), step), size - SAMPLE):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return digest.digest()


# ---- files and what is said of them ----------------------------------------------------------------------------------


def list_folder(
    folder: Path, caption: str = "", captioned: Mapping[str, tuple[str, ...]] | None = None, tell: bool = True
) -> list[Item]:
    """Every clip and picture in a folder and in those in it, by name, but for those that a list there leaves out. Of
    those without a caption of their own is said what `captioned` says by their names, or else `caption`; where nothing
    is, ConfigError, but where there is a `captioned` they are left out, which is printed if `tell`."""
    items, silent = [], []
    for item in _items(folder, tell):
        captions = item.captions or (captioned or {}).get(item.name, ()) or ((caption,) if caption else ())
        if not captions and captioned is not None:
            if tell:
                print(f"left out: {item.name}, of which the captioner has said nothing", flush=True)
            continue
        if not captions:
            silent.append(item.path.relative_to(folder))
        items.append(item._replace(captions=captions))
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        raise ConfigError(
            f"nothing is said of {silent[0]}{more}: write a caption into {silent[0].with_suffix('.txt')}, give one for "
            "all (caption), or let `yozora caption` say what there is to see in its folder"
        )
    return items


def uncaptioned(folder: Path) -> list[Item]:
    """The clips and pictures of a folder of which nothing is said there. Raises ConfigError where that is none."""
    if not folder.is_dir():
        raise ConfigError(f"a captioner is for folders of clips, and {folder} is none")
    return [item for item in _items(folder, tell=False) if not item.captions]


def _items(folder: Path, tell: bool) -> Iterator[Item]:
    """Clips and pictures with the captions of their own, if there are any. `tell`: what is left out is printed."""
    listed: dict[Path, dict[str, tuple[str, ...]]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in MEDIA and path.is_file()):
        if not _is_footage(path, folder):
            continue
        said = listed[path.parent] if path.parent in listed else listed.setdefault(path.parent, _listed(path.parent))
        captions = _beside(path) or said.get(path.name, ())
        if said and not captions and path.name not in said:
            if tell:
                print(f"left out: {_name(path, folder)}, which the list in its folder does not name", flush=True)
            continue
        yield Item(_name(path, folder), path, captions)


def _is_footage(path: Path, folder: Path) -> bool:
    """Not so what is hidden, and a run's own sample videos."""
    return not any(part.startswith(".") or part.endswith(".run") for part in path.relative_to(folder).parts)


def _name(path: Path, folder: Path) -> str:
    """A file's name within its folder, which can be printed and stored whatever bytes it is made of."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")


def _beside(path: Path) -> tuple[str, ...]:
    """The captions in the .txt or .json beside a file. Raises ConfigError where it is not readable text."""
    for ending in (".txt", ".json"):
        notes = path.with_suffix(ending)
        if notes.is_file():
            return _captions(_text(notes), ending, notes)
    return ()


def _short(captions: tuple[str, ...], where: object) -> tuple[str, ...]:
    """The captions. Raises ConfigError where one is none: every step that shows it would have to read it."""
    if (longest := max(map(len, captions), default=0)) > LONGEST:
        raise ConfigError(f"{where}: a caption of {longest:,} letters: give one of at most {LONGEST:,}")
    return captions


def _listed(folder: Path) -> dict[str, tuple[str, ...]]:
    """The captions of files by name, from the lists in a folder."""
    said: dict[str, tuple[str, ...]] = {}
    for path in (folder / name for name in LISTS):
        said |= _read_list(path) if path.is_file() else {}
    return said


def _read_list(path: Path) -> dict[str, tuple[str, ...]]:
    """A list's captions by name."""
    said: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            entry = _object(line, f"{path}, line {number}")
            name = next((entry[key] for key in NAMES if isinstance(entry.get(key), str)), None)
            if name is None:
                raise ConfigError(f"{path}, line {number}: there is no {' or '.join(NAMES)}")
            said[name] = _said(entry, f"{path}, line {number}")
    return said


def _captions(text: str, ending: str, where: object) -> tuple[str, ...]:
    if ending == ".txt":
        return _short(tuple(line.strip() for line in text.splitlines() if line.strip()), where)
    return _said(_object(text, str(where)), where)


def _said(entry: Mapping[str, Any], where: object) -> tuple[str, ...]:
    given = [entry.get(key) for key in SAID]
    values = [each for said in given for each in (said if isinstance(said, list) else [said])]
    return _short(tuple(value.strip() for value in values if isinstance(value, str) and value.strip()), where)


def _object(text: str, where: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(entry := json.loads(text), dict):
            return entry
    raise ConfigError(f"{where}: not a JSON object")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text ({error})") from None


def read_shard(path: Path, folder: Path, caption: str) -> Iterator[Item | Skipped]:
    """The samples of a WebDataset shard, in its order; each clip lies in `folder` until the next is asked for."""
    try:
        for key, parts in _samples(path):
            yield _sample(f"{path.name}:{key}", parts, folder, caption)
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        lzma.LZMAError,
        zlib.error,
    ) as error:  # what came before the damage counts
        yield Skipped(path.name, (str(error) or "it is damaged").splitlines()[0].removesuffix(":"))


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each key of a shard, with the contents of its files by their endings: neighbours that are called alike but for
    what follows the name's first dot."""
    last, parts = "", dict[str, bytes]()
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            if (key := folder + slash + stem) != last:
                if parts:
                    yield last, parts
                last, parts = key, {}
            parts[ending.lower()] = file.read()
        tar.fileobj.seek(tar.offset)  # the library takes a damaged header for the end
        damaged = any(tar.fileobj.read(tarfile.BLOCKSIZE))
    if parts:
        yield last, parts
    if damaged:
        raise tarfile.ReadError(f"it is damaged after {last}")


def _sample(name: str, parts: Mapping[str, bytes], folder: Path, caption: str) -> Item | Skipped:
    """One sample, its clip written into `folder`."""
    ending = next((f".{each.rsplit('.')[-1]}" for each in parts if f".{each.rsplit('.')[-1]}" in MEDIA), None)
    if ending is None:
        return Skipped(name, "no clip or picture")
    try:
        said = [_captions(parts[each].decode(), f".{each}", name) for each in ("txt", "json") if each in parts]
    except (UnicodeDecodeError, ConfigError) as error:
        return Skipped(name, str(error))
    captions = next((each for each in said if each), (caption,) if caption else ())
    if not captions:
        return Skipped(name, "nothing is said of it")
    file = folder / f"clip{ending}"
    file.write_bytes(next(content for each, content in parts.items() if f".{each.rsplit('.')[-1]}" == ending))
    return Item(name, file, captions)


# ---- cutting ---------------------------------------------------------------------------------------------------------


def cut(item: Item, footage: Footage) -> list[Piece] | Skipped:
    """A file's first pieces, one after the other, at the rate and size that are asked for; the last may be shorter."""
    pieces: list[Piece] = []
    try:
        with open_frames(item.path) as reader:
            size = size_of(reader.size, footage)
            shown = at_rate(iter(reader), reader.fps, footage.fps)
            while len(pieces) < footage.pieces:
                chunk = [fit_frames(frame[None], *size)[0] for frame in islice(shown, footage.frames)]
                count = 1 + (len(chunk) - 1) // 4 * 4 if chunk else 0
                if not count or (pieces and count == 1):
                    break
                start = len(pieces) * footage.frames / footage.fps
                line = {"name": item.name, "start": round(start, 3), "captions": list(item.captions)}
                pieces.append(Piece(torch.from_numpy(np.stack(chunk[:count])).permute(3, 0, 1, 2), line))
                if len(chunk) < footage.frames:
                    break
    except (MediaError, OSError) as error:
        return Skipped(item.name, str(error).replace(str(item.path), item.name))
    return pieces or Skipped(item.name, "it has no frames")


def size_of(source: tuple[int, int], footage: Footage) -> tuple[int, int]:
    """The (width, height) that a clip of `source`'s is learned at: of `sizes` the one of the nearest shape; without
    these its own shape, with at most `area` pixels and no more than it has."""
    ratio = source[0] / source[1]
    if footage.sizes:
        return min(footage.sizes, key=lambda size: abs(math.log(size[0] / size[1] / ratio)))
    area = min(footage.area, max(SIDE * SIDE, source[0] * source[1]))
    return fit_size(min(max(ratio, 1 / 8), 8), area, Grid(SIDE, 4, 1))
