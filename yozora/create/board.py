"""The storyboard: cards at times, each a prompt, a picture or a clip, in a TOML file.

    seconds = 6                 # as are size, aspect, resolution, fit and negative: all may be left out
    [[card]]
    at = 0
    prompt = "a red ball bounces on the grass"
    [[card]]
    at = 2.5
    image = "sunset.png"        # or clip = "waves.mp4"; paths are relative to the file
    prompt = "the ball rolls away"

A prompt holds until the next one. Gaps between pictures and clips are invented, but those less than CUT apart cut hard.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Unpack

from yozora.create.canvas import Canvas, Cue, check_prompt
from yozora.create.given import check_fit, open_given
from yozora.create.join import Card, check_time, stand
from yozora.create.limits import shown
from yozora.create.sizes import MAX_SECONDS, Native, check_seconds, misshapen
from yozora.create.ways import Asked, canvas_size
from yozora.errors import CanvasError

CUT = 0.3  # seconds
LAST = 2.0  # seconds that a last card without a clip is shown
MAX_CARDS = 64
_TOP = {
    "card": object,  # looked at more closely
    "seconds": (int, float),
    "size": str,
    "aspect": (str, float, int),
    "resolution": (str, int),
    "fit": str,
    "negative": str,
}
_KEYS = {"at": (int, float), "prompt": str, "image": str, "clip": str}


@dataclass(frozen=True)
class Board:
    """A storyboard, checked: prompts and files (in order of time, with their times) and what else is asked for."""

    cues: tuple[Cue, ...]
    files: tuple[tuple[float, Path], ...]
    seconds: float | None
    asked: Asked


def storyboard(board: Board | str | Path, *, native: Native, **asked: Unpack[Asked]) -> Canvas:
    """Each card at its time; `asked` goes before what the board asks for. Raises CanvasError, MediaError."""
    if not isinstance(board, (Board, str, Path)):
        raise CanvasError(f"a storyboard is a .toml file or a Board, not {shown(board)}")
    board = board if isinstance(board, Board) else read_board(board)
    wanted: Asked = {**board.asked, **{key: value for key, value in asked.items() if value}}  # type: ignore[typeddict-item]
    if asked.get("aspect") or asked.get("resolution"):
        wanted["size"] = asked.get("size")
    cards = [Card(at, open_given(path)) for at, path in board.files]
    size = canvas_size(cards[0].given if cards else None, native, wanted)
    frames = None if board.seconds is None else native.grid.nearest_frames(board.seconds, native.fps)
    anchors, notes, over = stand(cards, size, native, wanted.get("fit", "crop"), frames, CUT)
    if frames is None:
        latest = max([cue.start for cue in board.cues] + [at for at, _ in board.files])
        ends = anchors[-1].end if anchors and len(anchors[-1].clip.frames) > native.grid.temporal else 0
        frames = max(ends, native.grid.nearest_frames(min(latest + LAST, MAX_SECONDS), native.fps))
    trim = (0, over if anchors and anchors[-1].end == frames else 0)
    cues = board.cues if board.cues and board.cues[0].start == 0 else (_opening(board), *board.cues)
    negative = wanted.get("negative", "")
    notes += [*misshapen(size, wanted.get("aspect")), *_overruled(board, native)]
    return Canvas(*size, frames, native.fps, cues, tuple(anchors), False, negative, trim, notes=tuple(notes))


def _overruled(board: Board, native: Native) -> list[str]:
    """A line for each prompt that begins so shortly before a picture or clip that what it asks for has no time to be
    seen: all that is sampled together with what is given leads there."""
    lines, given = [], {at for at, _ in board.files}
    for at, path in board.files:
        before = [cue for cue in board.cues if cue.start < at]
        if before and before[-1].start not in given and at - before[-1].start < native.seconds_max:
            lines.append(
                f"the prompt at {before[-1].start:g} s begins {at - before[-1].start:.2g} s before {path.name}, which "
                f"shows already: put it {native.seconds_max:.2g} s or more ahead"
            )
    return lines


def read_board(path: str | Path) -> Board:
    """A board from its file. Raises CanvasError, in one line, for whatever is wrong with it but for its pictures."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no text: write one in TOML, with a [[card]] for each prompt, picture or clip"
        raise CanvasError(f"{str(path)[:120]} is no storyboard: {reason}") from None
    try:
        return _board(raw, path.parent)
    except CanvasError as error:
        raise CanvasError(f"{path}: {error}") from None


def _board(raw: Mapping[str, Any], folder: Path) -> Board:
    _check_types(raw, _TOP, "the board")
    cards = raw.get("card")
    if not isinstance(cards, list) or not cards or not all(isinstance(card, dict) for card in cards):
        raise CanvasError("there are no cards: write [[card]], at = 0, prompt = …")
    if len(cards) > MAX_CARDS:
        raise CanvasError(f"{len(cards)} cards are too many: at most {MAX_CARDS}")
    settings = {key: value for key, value in raw.items() if key not in ("card", "seconds")}
    if "fit" in settings:
        check_fit(settings["fit"])
    seconds = raw.get("seconds")
    if seconds is not None:
        check_seconds(seconds)
    cues, files = [], []
    for number, card in enumerate(cards, 1):
        _check_types(card, _KEYS, f"card {number}")
        if "at" not in card or not {"prompt", "image", "clip"} & card.keys() or {"image", "clip"} <= card.keys():
            raise CanvasError(f"card {number} needs `at`, and a prompt, an image or a clip (one of these two)")
        at = float(check_time(card["at"]))
        if "prompt" in card:
            check_prompt(card["prompt"], needed=True, what=f"prompt of card {number}")
            cues.append(Cue(at, card["prompt"]))
        if "image" in card or "clip" in card:
            files.append((at, folder / card.get("image", card.get("clip"))))
        if seconds is not None and at >= seconds:
            raise CanvasError(f"card {number} at {at:g} s is past the end ({seconds:g} s)")
    times = [card["at"] for card in cards]
    if len(set(times)) < len(times):
        raise CanvasError("two cards are at the same time: move one, or make them one")
    cues, files = sorted(cues, key=lambda cue: cue.start), sorted(files, key=lambda file: file[0])
    return Board(tuple(cues), tuple(files), seconds, settings)  # type: ignore[arg-type]


def _check_types(values: Mapping[str, Any], types: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in types:
            meant = get_close_matches(key, types, 1)
            hint = f" (did you mean {meant[0]}?)" if meant else ""
            raise CanvasError(f"{where} does not know {key[:40]!r}{hint}: there are {', '.join(types)}")
        if isinstance(value, bool) or not isinstance(value, types[key]):
            raise CanvasError(f"{where}: {key} is of the wrong type")


def _opening(board: Board) -> Cue:
    """Before the first prompt its text holds too; without any there is none."""
    return Cue(0.0, board.cues[0].prompt if board.cues and not board.files else "")
