"""The options that every way of creating shares, and what can be said of them before any model is loaded."""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from yozora.errors import CanvasError

if TYPE_CHECKING:
    from yozora.create.board import Board
    from yozora.create.given import Fit
    from yozora.create.presets import Preset
    from yozora.create.sizes import Native
    from yozora.create.target import Target
    from yozora.create.ways import Asked

DEFAULT_MODEL = "mini"

Prompt = Annotated[str, typer.Argument(help="What the video shows, in any language.", show_default=False)]
ClipFile = Annotated[Path, typer.Argument(help="A video, or a picture.", show_default=False)]
Seconds = Annotated[float | None, typer.Option(help="Length; the nearest that fits is made.")]


@dataclass(frozen=True)
class Options:
    """What is asked of any way: each field is an option of the command line."""

    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The file to write: .mp4, .gif, .webp or .png (a picture; of a video, a contact sheet).",
        ),
    ] = Path("out.mp4")
    size: Annotated[str | None, typer.Option(help="Exact size, WIDTHxHEIGHT (of the model: see --enhance).")] = None
    aspect: Annotated[str | None, typer.Option(help="Aspect, for example 16:9, 1:1 or 9:16.")] = None
    resolution: Annotated[
        str | None,
        typer.Option(help="Pixels of the short side, such as 480p; enlarged to it where the model is small."),
    ] = None
    fit: Annotated[
        str | None,
        typer.Option(help="How what is given fills another shape: crop (unless told), pad or stretch."),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Sampling steps: more is slower and finer.")] = None
    guidance: Annotated[
        float | None,
        typer.Option(help="How closely to follow the prompt; 1 is off."),
    ] = None
    projected: Annotated[
        bool | None,
        typer.Option(
            "--projected/--plain", help="Guidance without what only makes colours stronger; else as the model has it."
        ),
    ] = None
    solver: Annotated[
        str | None,
        typer.Option(help="euler, multistep, dpm++, unipc, or flow-map (few steps: quick, a little rougher)."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video; random if not given.")] = None
    variations: Annotated[int, typer.Option(help="How many videos to make, in one batch.")] = 1
    negative: Annotated[str, typer.Option(help="What the video must not show.")] = ""
    rewrite: Annotated[
        bool | None,
        typer.Option(
            "--rewrite/--no-rewrite", help="Put prompts into the model's own words first; unless told, for mini."
        ),
    ] = None
    rewriter: Annotated[
        str | None, typer.Option(metavar="NAME", help="What rewrites: mini, openai:MODEL@URL, or a model folder.")
    ] = None
    preset: Annotated[str | None, typer.Option(help="A style by name: `yozora presets list` has them.")] = None
    enhance: Annotated[str | None, typer.Option(help="Enlarge it: WIDTHxHEIGHT, or for example 1080p.")] = None
    enhance_fps: Annotated[
        float | None, typer.Option(help="Frames a second of the file, for example 24; those between are drawn.")
    ] = None
    model: Annotated[str | None, typer.Option(help=f"A shipped model's name or a folder; else {DEFAULT_MODEL}.")] = None
    lora: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:SCALE]", help="A LoRA to add to the model; several add up.")
    ] = None
    interval: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH", help="Guidance at these noise levels only; elsewhere a step is half the work."
        ),
    ] = None
    reuse: Annotated[
        float | None, typer.Option(help="Use a step's work again where little changed, up to so much; 0 is off.")
    ] = None
    weights: Annotated[str | None, typer.Option(help="Of open weights: int8 or fp8, half the memory.")] = None
    offload: Annotated[
        str | None,
        typer.Option(help="Of open weights: cpu (beside a GPU) or disk, where a block waits until it runs."),
    ] = None
    compiled: Annotated[
        bool, typer.Option("--compile", help="Of open weights: compile blocks, which takes a while.")
    ] = False
    tile: Annotated[int | None, typer.Option(help="Decode in tiles of so many pixels a side, for less memory.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = "auto"
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this picture, too.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a line a file.")] = False

    @property
    def asked(self) -> Asked:
        """What a way takes of them."""
        asked = {key: getattr(self, key) for key in ("size", "aspect", "resolution", "fit", "negative")}
        return cast("Asked", {key: value for key, value in asked.items() if value is not None})

    @property
    def asked_freely(self) -> Asked:
        """The same for a way that is given nothing which has a shape of its own: the preset's aspect counts."""
        return {**self.asked, "aspect": self.filled["aspect"]}

    @property
    def sampling(self) -> dict[str, Any]:
        """How the canvas is sampled; what is None is as the model's card says. Raises ConfigError."""
        asked = {"steps": self.filled["steps"], "guidance": self.filled["guidance"]}
        return asked | {"solver": self.solver, "projected": self.projected}

    @functools.cached_property
    def filled(self) -> dict[str, Any]:
        """What is asked for, and where nothing is, what the preset says. Raises ConfigError."""
        asked = {key: getattr(self, key) for key in ("size", "aspect", "steps", "guidance")}
        return asked if self.style is None else self.style.fill(asked)

    @functools.cached_property
    def style(self) -> Preset | None:
        """The preset. Raises ConfigError."""
        from yozora.create.presets import find_preset

        return None if self.preset is None else find_preset(self.preset)

    def target(self, size: tuple[int, int], fps: float, frames: int) -> Target | None:
        """What a video of so many frames is enhanced to, if that is asked; a picture stays one. Raises CanvasError."""
        from yozora.create.sizes import check_fps
        from yozora.create.target import check_even, choose_target

        if self.enhance is None and self.enhance_fps is None:
            return None
        if self.enhance_fps is not None:
            with _named("--enhance-fps"):
                check_fps(self.enhance_fps)
        rate = self.enhance_fps if frames > 1 else None
        larger = size if self.enhance is None else self.enhance
        with _named("--enhance" if self.enhance is not None else "--enhance-fps"):
            target = choose_target(size, fps, larger, rate, cast("Fit", self.fit or "crop"), self.aspect)
            check_even(self.output, target.size)
        return target

    def within(self, native: Native) -> Options:
        """The same, but a resolution far above what the model was trained on is what its result is enlarged to."""
        from yozora.create.target import enlarged

        larger = None if self.enhance is not None else enlarged(native, self.filled["aspect"], self.resolution)
        return self if larger is None else replace(self, resolution=None, enhance=larger)

    def of_board(self, board: Board) -> tuple[Board, Options]:
        """A storyboard without the shape that its file asks for, and these options with it where they ask for no other:
        it then counts as if it stood on the command line."""
        shape = ("size", "aspect", "resolution")
        told = {key: str(value) for key, value in board.asked.items() if key in shape}
        if self.size is not None:
            told = {}
        elif self.aspect is not None or self.resolution is not None:
            told.pop("size", None)
        told |= {key: getattr(self, key) for key in shape if getattr(self, key) is not None}
        asked = {key: value for key, value in board.asked.items() if key not in shape}
        return replace(board, asked=cast("Asked", asked)), replace(self, **told)

    def cautions(self, size: tuple[int, int], target: Target, enlarged: bool) -> list[str]:
        """A line for each thing about enhancing what is made at `size` that one may not think; `enlarged`: because of
        its resolution."""
        from yozora.create.target import falls_short

        (width, height), (w, h) = size, target.size
        lines = falls_short(self.enhance, target) if self.enhance is not None else []
        if enlarged:
            lines.append(f"{w}x{h} is far above what this model was trained on: made at {width}x{height} and enlarged")
        if self.enhance is not None and w * h < width * height:
            lines.append(f"--enhance {self.enhance} makes {w}x{h} of {width}x{height}; frames are for --enhance-fps")
        return lines

    def seeds(self) -> list[int]:
        """One a variation, from the first on; that is random if it was not given."""
        first = secrets.randbelow(2**31) if self.seed is None else self.seed
        return [first + i for i in range(self.variations)]

    def files(self) -> tuple[list[Path], list[Path]]:
        """The videos' files and the contact sheets'. Raises CanvasError, MediaError where they cannot be written."""
        from yozora.clip import check_writable
        from yozora.create.limits import check_variations

        check_variations(self.variations)
        files = numbered(self.output, self.variations)
        sheets = numbered(self.sheet, self.variations) if self.sheet else []
        for path in sheets:
            if path.suffix.lower() != ".png":
                raise CanvasError(f"a contact sheet is a .png, not {path.name!r}")
        for path in [*files, *sheets]:
            check_writable(path)
        if {path.resolve() for path in files} & {path.resolve() for path in sheets}:
            raise CanvasError("the output and the contact sheet are the same file: name them differently")
        return files, sheets

    def check(self, seeds: list[int]) -> None:
        """Raises CanvasError, ConfigError for what no model could do. Needs no torch, so it is quick."""
        from yozora.create.canvas import check_prompt
        from yozora.create.given import check_fit
        from yozora.create.limits import (
            check_guidance,
            check_reuse,
            check_seeds,
            check_steps,
            check_tile,
            parse_interval,
        )
        from yozora.create.sizes import Grid, Native, choose_size

        check_prompt(self.negative, what="negative prompt")
        check_seeds(seeds)
        if self.steps is not None:
            check_steps(self.steps)
        if self.guidance is not None:
            check_guidance(self.guidance)
        if self.reuse is not None:
            check_reuse(self.reuse)
        if self.interval is not None:
            parse_interval(self.interval)
        if self.tile is not None:
            check_tile(self.tile)
        if self.fit is not None:
            check_fit(self.fit)
        choose_size(Native(grid=Grid(1, 1, 1)), self.size, self.aspect, self.resolution)
        self.target((64, 64), 8.0, 9)
        _ = self.style


@contextmanager
def _named(option: str) -> Iterator[None]:
    """A CanvasError names the option that it is about."""
    try:
        yield
    except CanvasError as error:
        raise CanvasError(f"{option}: {error}") from None


def check_given(prompt: str, files: Sequence[Path] = (), seconds: float | None = None, needed: bool = False) -> None:
    """Raises CanvasError, MediaError for what no model could do; `needed`: a prompt. Needs no torch, so it is quick."""
    from yozora.create.canvas import check_prompt
    from yozora.create.given import open_given
    from yozora.create.sizes import check_seconds

    check_prompt(prompt, needed=needed)
    if seconds is not None:
        check_seconds(seconds)
    for file in files:
        open_given(file)


def shared(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command, whose last parameter is `options: Options`, every field of it as an option of its own.
    `defaults` replace some of the fields'."""
    hints = get_type_hints(Options, include_extras=True)
    empty = inspect.Parameter.empty
    wanted = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(field.name, field.default),
            annotation=hints.get(field.name, empty),
        )
        for field in fields(Options)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            options = Options(**{field.name: values.pop(field.name) for field in fields(Options)})
            command(**values, options=options)

        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *wanted)}
        setattr(run, "__signature__", inspect.Signature([*own, *wanted]))  # noqa: B010 (pyright knows no such attribute)
        return run

    return decorate


def numbered(path: Path, variations: int) -> list[Path]:
    """out.mp4 → out.mp4, or out-1.mp4, out-2.mp4 … for several."""
    if variations == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(variations)]
