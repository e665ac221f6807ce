"""Training what the captioner sees with: the inspector, which finds things, then the reader, which needs it.

Both are stages of their own; these are run with their own files, one after the other, and the two networks put into a
folder. `yozora.captions.learning` does the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal

from yozora.errors import ConfigError
from yozora.train.config import CaptionerStage, InspectorStage, ReaderStage
from yozora.train.inspector import train_inspector
from yozora.train.reader import train_reader
from yozora.train.settings import read_config


def train_eyes(config: CaptionerStage, resume: bool = True) -> Path:
    """Runs both stages; with `resume`, each goes on where it stopped. Returns the folder of the two networks. Raises
    ConfigError."""
    inspector = read_config(InspectorStage, config.inspector, settings_for(config, "inspector"))
    # checked before anything is trained
    read_config(ReaderStage, config.reader, [*settings_for(config, "reader"), 'inspector="made first"'])
    made = train_inspector(inspector, resume)
    found = f"inspector={json.dumps(str(made))}"
    reader = read_config(ReaderStage, config.reader, [*settings_for(config, "reader"), found])
    export = config.out / "export"
    for name, folder in (("inspector", made), ("reader", train_reader(reader, resume))):
        put(folder, export / name)
    return export


def settings_for(config: CaptionerStage, name: Literal["inspector", "reader", "weigher"]) -> list[str]:
    """What the captioner's stage says of one of its own: where it is written, on what it runs, and what else is
    changed in it."""
    own = [f"run.out={json.dumps(str(config.out / name))}", f"run.device={json.dumps(config.device)}"]
    return [*own, *config.changes.get(name, ())]


def put(folder: Path, place: Path) -> None:
    """A copy of a folder, all of it or none. Raises ConfigError."""
    part = place.with_name(f".{place.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ConfigError(f"cannot write {place} ({error.strerror or error})") from None
