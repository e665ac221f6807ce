"""Style presets: named bundles of words around the prompt, a negative prompt and settings.

Some are shipped (presets.toml); files of the same form in the user's configuration folder add to them or replace them.
"""

from __future__ import annotations

import os
import sys
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yozora.create.limits import check_guidance, check_steps, shown
from yozora.create.sizes import parse_aspect
from yozora.errors import CanvasError, ConfigError, YozoraWarning

if TYPE_CHECKING:
    from yozora.create.canvas import Canvas

SHIPPED = Path(__file__).with_name("presets.toml")
LONGEST = 1000  # characters of a text


@dataclass(frozen=True)
class Preset:
    """`prefix` and `suffix` go around the prompt; the other settings are used where none are asked for (None or ""
    says nothing). Raises CanvasError for a value that no run could use."""

    name: str
    description: str = ""
    prefix: str = ""
    suffix: str = ""
    negative: str = ""
    steps: int | None = None
    guidance: float | None = None
    aspect: str | float | None = None

    def __post_init__(self) -> None:
        for key in ("description", "prefix", "suffix", "negative"):
            text = getattr(self, key)
            if not isinstance(text, str) or len(text) > LONGEST:
                raise CanvasError(f"{key} must be text of at most {LONGEST} characters, not {shown(text)}")
        if self.steps is not None:
            check_steps(self.steps)
        if self.guidance is not None:
            check_guidance(self.guidance)
        if self.aspect is not None:
            parse_aspect(self.aspect)

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, of negative, steps, guidance and aspect."""
        values = {key: getattr(self, key) for key in ("negative", "steps", "guidance", "aspect")}
        return {key: value for key, value in values.items() if value not in (None, "")}

    def apply(self, prompt: str) -> str:
        """The prompt between prefix and suffix. A full stop at its end gives way to the suffix, and what would begin an
        empty prompt's suffix (", ") is left out. A prompt that has them already stays as it is."""
        words, suffix = prompt.strip(), self.suffix.strip()
        prefix = self.prefix.strip()
        if words.startswith(prefix) and words.endswith(suffix) and (prefix or suffix):
            return words
        if words and suffix:
            words = words.removesuffix(".").rstrip() + ("" if suffix[0] in ",.;:" else " ") + suffix
        elif suffix:
            words = suffix.lstrip(",.;: ")
        return f"{prefix} {words}".strip()

    def fill(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked for, by name ("negative", "steps", "guidance", "aspect", "size", whatever else), and its own
        settings where nothing was: None, "" and a missing key. An exact "size" rules out its aspect."""
        filled = dict(asked)
        for key, value in self.settings.items():
            if filled.get(key) in (None, "") and not (key == "aspect" and filled.get("size") is not None):
                filled[key] = value
        return filled

    def on(self, canvas: Canvas) -> Canvas:
        """The canvas with the words around each of its prompts, and with the negative prompt where it has none. Raises
        CanvasError where that makes a prompt too long."""
        cues = tuple(replace(cue, prompt=self.apply(cue.prompt)) for cue in canvas.cues)
        return replace(canvas, cues=cues, negative=canvas.negative or self.negative)


def apply_preset(name: str, prompt: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The prompt and the settings as the preset `name` has them: see `Preset.apply` and `Preset.fill`. (For a way that
    takes its aspect from a picture, leave out the aspect of what comes back.) Raises ConfigError for an unknown preset,
    in one line."""
    preset = find_preset(name)
    return preset.apply(prompt), preset.fill(settings)


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError, which names the known ones."""
    presets = load_presets()
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f"there is no preset {shown(name)}; known: {', '.join(sorted(presets))}")
    return presets[name]


def load_presets() -> dict[str, Preset]:
    """All presets by name: the shipped ones, then the user's, which may replace them. A file of the user's that cannot
    be used, or has a preset that another has, is left out with a warning (YozoraWarning) that says why."""
    presets, homes = _read(SHIPPED), dict[str, Path]()
    for path in user_files():
        try:
            own = _read(path)
            for name in own.keys() & homes.keys():
                raise ConfigError(f"{path}: the preset {shown(name)} is in {homes[name]}, too: rename one")
        except ConfigError as error:
            warnings.warn(f"{error}; none of its presets is known", YozoraWarning, stacklevel=2)
            continue
        presets |= own
        homes |= dict.fromkeys(own, path)
    return presets


def user_files() -> list[Path]:
    """The user's files of presets."""
    folder = user_folder()
    return sorted(folder.glob("*.toml")) if folder and os.path.isdir(folder) else []


def user_folder() -> Path | None:
    """Where the user's presets are looked for: `yozora/presets` in $XDG_CONFIG_HOME or ~/.config, in
    ~/Library/Application Support on macOS, in %APPDATA% on Windows. None for a user without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        root = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        root = home / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        if not root.is_absolute():  # unset, or one that the XDG specification says to ignore
            root = home / ".config"
    return root / "yozora" / "presets"


def _read(path: Path) -> dict[str, Preset]:
    """The presets of one file. Raises ConfigError."""
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:160]
        reason = reason.replace("at end of document", f"at line {text.count(chr(10)) + 1}, the last")
        raise ConfigError(f"{path} is not valid TOML: {reason}") from None
    return {name: _preset(path, name, table) for name, table in tables.items()}


def _preset(path: Path, name: str, table: Any) -> Preset:
    known = [field.name for field in fields(Preset) if field.name != "name"]
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {shown(name)} stands outside a table: begin each preset with [its-name]")
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: preset {shown(name)}: unknown key {shown(key)}; known: {', '.join(known)}")
    try:
        return Preset(name, **table)
    except CanvasError as error:
        raise ConfigError(f"{path}: preset {shown(name)}: {error}") from None
