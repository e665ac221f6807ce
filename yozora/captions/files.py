"""Captions of files: a line of JSON each, as `yozora train lora FOLDER` and WebDataset tools read them; resumable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yozora.captions.caption import Caption, Captioner
from yozora.clip import Clip
from yozora.errors import ConfigError, MediaError, ModelError
from yozora.train.footage import MEDIA, uncaptioned

LIST = "captions.jsonl"
START = b'{"file": '  # how every line begins


class Captioned(NamedTuple):
    """A file's name in its list, and its caption or why it has none."""

    name: str
    caption: Caption | None
    reason: str = ""


def media_in(path: Path) -> list[Path]:
    """The file itself, or every clip and picture right in a folder, by name. Raises ConfigError where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"there is no file or folder {path}")
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in MEDIA and each.is_file())
    if not found:
        raise ConfigError(f"there is no clip or picture in {path} ({', '.join(MEDIA[:4])}, …)")
    return found


def caption_files(path: Path, captioner: Captioner, output: Path, again: bool = False) -> Iterator[Captioned]:
    """Captions a file or a folder's files into `output`, a line each as soon as it is made; files that are listed there
    already are passed over, unless `again`: then a file's new line takes the place of its old one, and the lines of
    other files stay. Yields what is made; a file that cannot be read or captioned is no line. Raises ConfigError where
    the list cannot be read or written, or `output` is no such list."""
    files = [(file.name, file) for file in media_in(path)]
    if output.suffix.lower() in MEDIA:
        raise ConfigError(f"{output} is named like a clip, and would be a list of captions: name another file with -o")
    yield from _caption(files, captioner, output, set() if again else listed(output))


def caption_silent(folder: Path, captioner: Captioner, output: Path) -> Iterator[Captioned]:
    """As `caption_files`, of the clips and pictures in a folder, and in those in it, of which nothing is said there; by
    their names within it."""
    files = [(item.name, item.path) for item in uncaptioned(folder)]
    yield from _caption(files, captioner, output, listed(output))


def _caption(
    files: Sequence[tuple[str, Path]], captioner: Captioner, output: Path, done: set[str]
) -> Iterator[Captioned]:
    """Captions files, by the names that they are listed by, but for those that are `done`."""
    try:
        _tidy(output)
        there = output.exists()
        try:
            with output.open("a", encoding="utf-8") as lines:
                for name, file in files:
                    if name in done:
                        continue
                    if not _is_text(name):
                        yield Captioned(name, None, "a list cannot hold its name, which is no UTF-8: rename it")
                        continue
                    try:
                        caption = captioner.caption(Clip.read(file))
                    except (MediaError, ModelError) as error:
                        yield Captioned(name, None, str(error))
                        continue
                    lines.write(json.dumps(line_of(name, caption, captioner), ensure_ascii=False) + "\n")
                    lines.flush()
                    yield Captioned(name, caption)
        finally:
            _tidy(output)
            if not there and output.exists() and not output.stat().st_size:  # nothing could be captioned
                output.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write {output} ({error.strerror}); name another file with -o") from None


def line_of(name: str, caption: Caption, captioner: Captioner) -> dict[str, Any]:
    """A caption as a line of a list; `events` with their seconds besides the texts."""
    timed = {"timed": caption.timed} if caption.events else {}
    events = [event.model_dump() for event in caption.events]
    whose = {"by": captioner.name, "language": captioner.language}
    return {"file": name, "short": caption.short, "dense": caption.dense, **timed, "events": events, **whose}


def listed(output: Path) -> set[str]:
    """The files that a list has whole lines of. Raises ConfigError for what is no such list."""
    return set(_lines(output))


def listed_otherwise(output: Path, files: Sequence[Path], captioner: Captioner) -> list[str]:
    """Those of the files that a list has a caption of by another captioner, or in another language, as far as it says
    so. Raises ConfigError for what is no such list."""
    lines, whose = _lines(output), (captioner.name, captioner.language)
    said = {file.name: json.loads(lines[file.name]) for file in files if file.name in lines}
    return [name for name, line in said.items() if (line.get("by", whose[0]), line.get("language", whose[1])) != whose]


def _lines(output: Path) -> dict[str, str]:
    """A list's whole lines by the names of their files: of two for one file the later. Raises ConfigError."""
    try:
        *whole, last = output.read_bytes().split(b"\n")
        lines = b"\n".join(whole).decode("utf-8").split("\n") if whole else []
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{output} cannot be read; name another file with -o") from None
    if not _is_cut_off(last):
        lines.append(last.decode("utf-8", "replace"))
    named = dict[str, str]()
    for line in lines:
        try:
            named[json.loads(line)["file"]] = line
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{output} holds something that is no list of captions: name another with -o") from None
    return named


def _is_cut_off(last: bytes) -> bool:
    """Whether what follows a list's last end of a line is nothing, or a line of ours whose writing was broken off."""
    try:
        json.loads(last)
    except ValueError:
        return last[: len(START)] == START[: len(last)]
    return False


def _is_text(name: str) -> bool:
    """Whether a file's name can be written as text: the system's are bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tidy(output: Path) -> None:
    """Takes off a line that was cut short, and lines that later ones of the same file replace: all at once."""
    lines = _lines(output)
    tidy = "".join(f"{line}\n" for line in lines.values()).encode()
    if not output.exists() or output.read_bytes() == tidy:
        return
    place = output.resolve()  # a link stays one
    part = place.with_name(f"{place.name}.part")
    try:
        part.write_bytes(tidy)
        shutil.copymode(place, part)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
