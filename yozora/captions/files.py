"""Captions of files: a line of JSON each, as `yozora train lora FOLDER` and WebDataset tools read them; resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from yozora.captions.caption import Caption, Captioner
from yozora.clip import Clip
from yozora.errors import ConfigError, MediaError, ModelError
from yozora.train.footage import MEDIA

LIST = "captions.jsonl"


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
    already are passed over, unless `again`. Yields what is made; a file that cannot be read or captioned is no line.
    Raises ConfigError where the list cannot be read or written."""
    files, done = media_in(path), set[str]() if again else listed(output)
    try:
        _mend(output, again)
        with output.open("a", encoding="utf-8") as lines:
            for file in files:
                if file.name in done:
                    continue
                try:
                    caption = captioner.caption(Clip.read(file))
                except (MediaError, ModelError) as error:
                    yield Captioned(file.name, None, str(error))
                    continue
                lines.write(json.dumps(line_of(file.name, caption, captioner.name), ensure_ascii=False) + "\n")
                lines.flush()
                yield Captioned(file.name, caption)
    except OSError as error:
        raise ConfigError(f"cannot write {output} ({error.strerror}); name another file with -o") from None


def line_of(name: str, caption: Caption, by: str) -> dict[str, Any]:
    """A caption as a line of a list; `events` with their seconds besides the texts."""
    timed = {"timed": caption.timed} if caption.events else {}
    events = [event.model_dump() for event in caption.events]
    return {"file": name, "short": caption.short, "dense": caption.dense, **timed, "events": events, "by": by}


def listed(output: Path) -> set[str]:
    """The files that a list has whole lines of. Raises ConfigError for what is no such list."""
    try:
        text = output.read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{output} cannot be read; name another file with -o") from None
    names = set[str]()
    for line in text.split("\n")[:-1]:  # what follows the last end of a line was cut off
        try:
            names.add(json.loads(line)["file"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{output} holds something that is no list of captions: name another with -o") from None
    return names


def _mend(output: Path, again: bool) -> None:
    """Takes off a line that was cut short, or all lines."""
    if not output.exists():
        return
    with output.open("rb+") as file:
        whole = 0 if again else file.read().rfind(b"\n") + 1
        file.truncate(whole)
        os.fsync(file.fileno())
