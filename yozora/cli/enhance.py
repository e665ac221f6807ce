"""`yozora enhance`: a clip becomes larger and smoother."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from yozora.cli.bars import bars
from yozora.cli.making import keep_sources


def enhance(
    clip: Annotated[Path, typer.Argument(help="The video or picture to enhance.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .mp4, .gif, .webp or .png (a picture).")
    ] = Path("out.mp4"),
    size: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT, or the pixels of the short side, such as 1080p, which keeps the shape.")
    ] = "1080p",
    fps: Annotated[float | None, typer.Option(help="Frames a second; those of the clip if not given.")] = None,
    fit: Annotated[str, typer.Option(help="How another shape is filled: crop, pad or stretch.")] = "crop",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line.")] = False,
) -> None:
    """Make CLIP larger, with more frames a second: it is read, enhanced and written frame by frame."""
    from yozora.clip import check_writable, open_frames
    from yozora.create.target import check_even, choose_target, falls_short

    start = time.perf_counter()
    check_writable(output)
    keep_sources([output], [clip])
    with open_frames(clip) as reader:
        target = choose_target(reader.size, reader.fps, size, fps, fit)  # pyright: ignore[reportArgumentType]
    check_even(output, target.size)
    for line in falls_short(size, target):
        print(f"warning: {line}", file=sys.stderr)
    enhancer = _load()
    total = target.count(_count(clip))
    with open_frames(clip) as reader, bars(["enhance"]) as show:
        from yozora.create.enhance import write_enhanced

        recipe = target.recipe(reader.recipe, str(clip))
        count = write_enhanced(
            reader, target, output, reader.recipe, enhancer, lambda n: show("enhance", n, total), str(clip)
        )
    width, height = target.size
    took = time.perf_counter() - start
    if as_json:
        said = {"path": str(output), "size": [width, height], "frames": count, "fps": target.fps}
        print(json.dumps(said | {"recipe": asdict(recipe), "seconds": round(took, 3)}, ensure_ascii=False))
    else:
        length = "a picture" if count == 1 else f"{count} frames, {count / target.fps:.2f} s"
        print(f"{output}: {width}x{height}, {length}, made in {took:.1f} s")


def _load() -> Any:
    """The enhancer, on the GPU where there is one. Raises ModelError."""
    from yozora.create.enhance import load_enhancer
    from yozora.create.generator import choose_device

    return load_enhancer(device=choose_device())


def _count(clip: Path) -> int:
    """How many frames there are, found by reading them all: that takes little of the time that enhancing them will, and
    a clip that is damaged in the middle is refused before the work and not after half of it. Raises MediaError."""
    from yozora.clip import open_frames

    with open_frames(clip) as reader:
        return sum(1 for _ in reader)
