"""What can be measured on any footage, without ground truth: what the autoencoder loses, flicker and motion of the
clips, of their continuations and of videos made from their prompts; and the CLIP score, where a model is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yozora.clip import Clip
from yozora.create import Generator
from yozora.create.canvas import check_prompt
from yozora.create.given import open_given
from yozora.create.ways import canvas_size
from yozora.errors import CanvasError, MediaError
from yozora.evaluate.clipscore import FRAMES, ClipScore
from yozora.evaluate.pixels import flicker, smoothness, ssim
from yozora.evaluate.reconstruction import psnr, reconstruct
from yozora.evaluate.scenes import NOTHING, Show, mean_known
from yozora.evaluate.section import Section, Shown

COLUMNS = ("the clips", "through the autoencoder", "continued", "from the prompts")
ROWS = {"PSNR, dB": "{:.2f}", "SSIM": "{:.3f}", "flicker, of 255": "{:.2f}", "motion smoothness": "{:.3f}"}
SCORE = {"CLIP score": "{:.2f}"}
SHOWN = 24  # clips in the report
PROMPT = ".txt"  # the ending of a clip's prompt, beside it

Figures = dict[str, dict[str, float]]  # a row's figure a column


@dataclass
class Measured:
    """What was found so far."""

    files: dict[str, Figures] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clips: list[Shown] = field(default_factory=list)


def media_files(folder: Path) -> list[Path]:
    """The files of a folder that may be clips: all but prompts and hidden ones. Raises MediaError, in one line, where
    there are none."""
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder: give one with clips, and beside each its prompt as a {PROMPT}")
    try:
        found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() != PROMPT and p.name[0] != ".")
    except OSError as error:
        raise MediaError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise MediaError(f"there are no clips in {folder}: put videos there, and beside each its prompt as a {PROMPT}")
    return found


def media(generator: Generator, folder: Path, progress: Show, clip_model: Path | None = None) -> Section:
    """Measures every clip of the folder, each brought to the model's size and rate and cut to its length. What cannot
    be read is named and left out. Raises MediaError where nothing can, ModelError for a bad CLIP model."""
    paths, measured = media_files(folder), Measured()
    score = ClipScore(clip_model, generator.bundle.device) if clip_model else None
    for number, path in enumerate(paths):
        progress(number, len(paths), path.name)
        try:
            _measure(generator, path, number, score, measured)
        except (MediaError, CanvasError) as error:
            measured.notes.append(f"{path.name} was left out: {error}")
    progress(len(paths), len(paths), "")
    if not measured.files:
        raise MediaError(f"no clip in {folder} can be read: {measured.notes[0]}")
    rows = ROWS | (SCORE if score else {})
    means = {
        row: {c: mean_known(f[row].get(c, NOTHING) for f in measured.files.values()) for c in COLUMNS} for row in rows
    }
    return Section(
        "Your footage",
        f"{len(measured.files)} clips, each brought to the model's size and rate, its first "
        f"{generator.native.frames_max} frames; the mean over those that a figure can be given for.",
        ("", *COLUMNS),
        tuple((row, *(_shown(means[row][c], rows[row]) for c in COLUMNS)) for row in rows),
        {"mean": means, "files": measured.files},
        (*_notes(score is not None), *measured.notes),
        tuple(measured.clips[:SHOWN]),
    )


def _notes(scored: bool) -> tuple[str, ...]:
    about = f"CLIP score: 100 max(0, cos) of a prompt and {FRAMES} frames, the mean (Hessel et al., 2021)."
    return (
        "Flicker: mean of |x[t-1] - 2 x[t] + x[t+1]| where the picture stands still; none where the camera moves.",
        "Motion smoothness: 1 - sum |s[t+1] - s[t]| / sum (s[t+1] + s[t]) of the steps s between frames.",
        "Continued: the model is given the first half, and what it invents after that is measured.",
        about if scored else "CLIP score: not run: it needs a CLIP model's folder, --clip FOLDER, and transformers.",
        "VBench's measures: not run: they need the weights of several large networks, which are not in this package.",
    )


def _measure(generator: Generator, path: Path, number: int, score: ClipScore | None, measured: Measured) -> None:
    """One file. Raises MediaError, CanvasError where it cannot be read or used."""
    native = generator.native
    given, prompt = open_given(path), _prompt_of(path, measured)
    clip = given.read(*canvas_size(given, native, {}), native.fps, "crop", native.frames_max)
    clip = Clip(clip.frames[: len(clip.frames) - (len(clip.frames) - 1) % native.grid.temporal], clip.fps)
    made = {"the clips": clip, "through the autoencoder": reconstruct(generator.bundle.autoencoder, clip)}
    half = len(clip.frames) // 2
    if half:
        held = Clip(clip.frames[:half], clip.fps)
        longer = generator.extend(held, prompt, seconds=(len(clip.frames) - half) / clip.fps, seed=number)
        made["continued"] = Clip(longer.frames[half:], clip.fps)
        measured.clips.append(Shown(longer, f"{path.name}, continued from its first half. {prompt}".strip()))
    if prompt:
        made["from the prompts"] = generator.generate(prompt, seed=number, size=clip.size)
        measured.clips.append(Shown(made["from the prompts"], prompt))
    again = made["through the autoencoder"].frames
    figures: Figures = {
        "PSNR, dB": {"through the autoencoder": psnr(clip.frames, again)},
        "SSIM": {"through the autoencoder": ssim(clip.frames, again)},
        "flicker, of 255": {name: flicker(each.frames) for name, each in made.items()},
        "motion smoothness": {name: smoothness(each.frames) for name, each in made.items()},
    }
    if score:
        figures["CLIP score"] = {name: score(each, prompt) for name, each in made.items()} if prompt else {}
    measured.files[path.name] = figures


def _prompt_of(path: Path, measured: Measured) -> str:
    """The text beside a clip, "" where there is none; one that cannot be used is named."""
    beside = path.with_suffix(PROMPT)
    if not beside.exists():
        return ""
    try:
        prompt = " ".join(beside.read_text(encoding="utf-8").split())
        check_prompt(prompt)
        return prompt
    except (OSError, UnicodeDecodeError, CanvasError) as error:
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        measured.notes.append(f"{beside.name} was not used: {reason}")
        return ""


def _shown(value: float, form: str) -> str:
    return "" if value != value else form.format(value)
