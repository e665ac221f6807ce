"""Writes docs/ways.md and its pictures: every way of creating, with the command that made what is shown.

The commands run in one folder, in the order of the page, so that later ones take what earlier ones made.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yozora.cli import main as yozora
from yozora.clip import Clip

FRAMES = 8  # in a row
BORDER = 4  # pixels
FREE, HELD = np.array((225.0, 225.0, 225.0)), np.array((20.0, 160.0, 60.0))
MOST_BYTES = 1_500_000  # of all pictures
BOARD = """\
seconds = 5
[[card]]
at = 0
prompt = "a red ball bounces on the grass"
[[card]]
at = 2.5
image = "cube.png"
prompt = "a blue cube slides to the left on the sand"
"""


@dataclass(frozen=True)
class Way:
    """A part of the page. `command` ends in the file that it makes; `shown` are the files in the picture, if others."""

    title: str
    text: str
    command: str
    shown: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return self.shown or (shlex.split(self.command)[-1],)

    @property
    def picture(self) -> str:
        """The file name of its picture."""
        return f"{Path(self.files[0]).stem}.webp"


WAYS = (
    Way(
        "From text",
        "Nothing is held.",
        'yozora generate "a red ball bounces on the grass" --seed 0 -o ball.mp4',
    ),
    Way(
        "A picture from text",
        "A video of one frame; nothing is held.",
        'yozora image "a blue cube on the sand" --seed 0 -o cube.png',
    ),
    Way(
        "From a picture",
        "The first frame is held.",
        'yozora animate cube.png "a blue cube slides to the left on the sand" --seed 0 -o slide.mp4',
    ),
    Way(
        "Extend",
        "The whole clip is held, and a second is added.",
        'yozora extend slide.mp4 "a blue cube slides to the left on the sand" --seconds 1 --seed 0 -o longer.mp4',
    ),
    Way(
        "Extend backward",
        "The whole clip is held, and the second before it is invented.",
        'yozora extend ball.mp4 "a red ball bounces on the grass" --backward --seconds 1 --seed 0 -o earlier.mp4',
    ),
    Way(
        "Fill",
        "Pictures and clips are held at their times, and what is between is invented: here the way back.",
        'yozora fill "a blue cube slides to the right on the sand" --at 0=slide.mp4 --at 3.5=cube.png --seed 0 '
        "-o filled.mp4",
    ),
    Way(
        "Loop",
        "The end is tied to the beginning, so that the last frame leads into the first.",
        'yozora loop "a yellow cone spins on the snow" --seed 0 -o loop.mp4',
    ),
    Way(
        "Loop of a clip",
        "The whole clip is held, and a second leads from its end back to its beginning.",
        'yozora loop slide.mp4 "a blue cube slides on the sand" --seconds 1 --seed 0 -o round.mp4',
    ),
    Way(
        "Blend",
        "The first clip is held less and less and the second more and more; with more `--seconds` they overlap less.",
        "yozora blend ball.mp4 slide.mp4 --seed 0 -o blend.mp4",
    ),
    Way(
        "Remix, mild",
        "The whole clip is held a little, under another prompt: the stronger the remix, the less.",
        'yozora remix ball.mp4 "a green ball bounces on the snow" --strength mild --seed 0 -o mild.mp4',
    ),
    Way(
        "Remix, strong",
        "The same with less of the clip held.",
        'yozora remix ball.mp4 "a green ball bounces on the snow" --strength strong --seed 0 -o strong.mp4',
    ),
    Way(
        "Recut",
        "The kept pieces are held where they are, and what was between is made anew.",
        'yozora recut ball.mp4 "a red ball bounces on the grass" --keep 0-0.7 --keep 1.4-2 --seed 0 -o recut.mp4',
    ),
    Way(
        "Inpaint",
        "All is held but where the mask is white: here all but a strip at either side.",
        'yozora inpaint ball.mp4 "a yellow ball bounces on the grass" --mask mask.png --seed 0 -o inpaint.mp4',
    ),
    Way(
        "Storyboard",
        "Cards at times, each a prompt, a picture or a clip, from a file such as the `board.toml` below. The picture "
        "is held at its time, and what is sampled with it leads there: put a prompt some two seconds ahead of it.",
        "yozora storyboard board.toml --seed 0 -o story.mp4",
    ),
    Way(
        "Longer than the model's window",
        "Made in windows, each of which holds the end of the one before.",
        'yozora generate "a purple cone spins on the snow while the camera orbits" --seconds 20 --seed 0 -o long.mp4',
    ),
    Way(
        "Another shape",
        "Any aspect and size; nothing is held.",
        'yozora generate "an orange cylinder rolls to the right on the grass" --aspect 16:9 --seed 0 -o wide.mp4',
    ),
    Way(
        "Variations",
        "Several videos in one batch, a seed each.",
        'yozora generate "a white torus falls on the sand" --variations 3 --seed 0 -o torus.mp4',
        ("torus-1.mp4", "torus-2.mp4", "torus-3.mp4"),
    ),
    Way(
        "A style",
        "A preset puts a style's words around any prompt.",
        'yozora generate "a red ball bounces on the grass" --preset sketch --seed 0 -o sketch.mp4',
    ),
    Way(
        "Again",
        "From the recipe in a file; here with another seed.",
        "yozora again ball.mp4 --seed 1 -o other.mp4",
    ),
    Way(
        "Enhance",
        "Any clip, larger and with more frames a second; here four times as large, and shown so.",
        "yozora enhance cube.png --size 512p -o large.png",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/ways.md and its pictures.")
    parser.add_argument("--add", default="", metavar="OPTIONS", help="for every command, such as '--steps 8'")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "docs", help="folder")
    options = parser.parse_args()
    output = options.output.resolve()
    pictures = output / "ways"
    pictures.mkdir(parents=True, exist_ok=True)
    started = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the commands name files without a folder
        try:
            Path("board.toml").write_text(BOARD, encoding="utf-8")
            for way in WAYS:
                command = add(way.command, options.add)
                if yozora(shlex.split(command)[1:]):
                    raise SystemExit(f"this command failed: {command}")
                if way.files[0] == "ball.mp4":
                    write_mask(Clip.read("ball.mp4"))
                sheet = np.concatenate([strip(Clip.read(file)) for file in way.files])
                Clip(sheet[None], fps=1).write(pictures / way.picture)
        finally:
            os.chdir(started)
    (output / "ways.md").write_text(page(options.add), encoding="utf-8")
    size = sum((pictures / way.picture).stat().st_size for way in WAYS)
    print(f"wrote {output / 'ways.md'} and {len(WAYS)} pictures, {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"the pictures are larger than {MOST_BYTES / 1000:.0f} kB: show fewer frames")


def add(command: str, more: str) -> str:
    """The command with more options, before its output."""
    return command.replace(" -o ", f" {more} -o ") if more else command


def write_mask(clip: Clip) -> None:
    """mask.png for that clip: white but for a strip at either side, so that all of the thing is made anew."""
    mask = np.zeros_like(clip.frames[:1])
    width = mask.shape[2]
    mask[:, :, width // 16 : width * 15 // 16] = 255
    Clip(mask, fps=1).write("mask.png")


def strip(clip: Clip) -> np.ndarray:
    """FRAMES frames, evenly from the first to the last, side by side in borders that say how firmly each is held. One
    that is held for less than the way between two of them takes the place of the nearest."""
    places = np.unique(np.linspace(0, len(clip.frames) - 1, FRAMES).round().astype(int))
    holds = held(clip)
    for place in np.flatnonzero(holds == 1):
        if not (holds[places] == 1).any():
            places[np.abs(places - place).argmin()] = place
    framed = []
    for place in places:
        frame = np.pad(clip.frames[place], ((BORDER, BORDER), (BORDER, BORDER), (0, 0)))
        edge = np.ones(frame.shape[:2], bool)
        edge[BORDER:-BORDER, BORDER:-BORDER] = False
        frame[edge] = FREE + (HELD - FREE) * holds[place]
        framed.append(frame)
    return np.concatenate(framed, axis=1)


def held(clip: Clip) -> np.ndarray:
    """float [F]: how firmly each frame was held, 0 to 1, by the clip's recipe; half where a mask left a part free."""
    canvas = clip.recipe.canvas if clip.recipe else {}
    holds = np.zeros(canvas.get("frames", len(clip.frames)))
    for anchor in canvas.get("anchors", ()):
        count = anchor["frames"]
        curve = np.atleast_1d(anchor["hold"]) * (0.5 if anchor.get("mask") else 1.0)
        hold = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(curve)), curve)
        part = slice(anchor["start"], anchor["start"] + count)
        holds[part] = np.maximum(holds[part], hold)
    head = canvas.get("trim", (0, 0))[0]
    return holds[head : head + len(clip.frames)]


def page(more: str) -> str:
    """The page."""
    parts = [
        "# Every way of creating\n",
        "One canvas, one sampler: the ways differ in what is held, and how firmly. The greener the border of a frame,",
        "the more firmly it was held; what has a grey border was invented. All by the shipped model, seed 0, first",
        "try; this page and its pictures are made by [`scripts/ways.py`](../scripts/ways.py), by the commands that it",
        "shows, in this order. Where it falls short, so does the model: a mild remix and an inpainting of a large",
        "thing keep too much of it, and what comes back into the picture may be another thing.\n",
    ]
    for way in WAYS:
        parts += [f"## {way.title}\n", f"{way.text}\n", f"```\n{add(way.command, more)}\n```\n"]
        if "board.toml" in way.command:
            parts += [f"```toml\n{BOARD}```\n"]
        parts += [f"![Frames of {', '.join(way.files)}, from the first to the last](ways/{way.picture})\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
