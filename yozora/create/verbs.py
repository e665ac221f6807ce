"""A Generator's methods, one a way: each draws the way's canvas and fills it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from yozora.clip import Clip
from yozora.create import board as boards
from yozora.create import join, ways
from yozora.create.begin import Begin
from yozora.create.beside import Beside
from yozora.create.canvas import Canvas
from yozora.create.given import Picture
from yozora.create.presets import find_preset
from yozora.create.sizes import Native
from yozora.create.ways import Asked


class Options(Asked, total=False):
    """What every method takes besides: how the canvas is sampled, and a style by name (see `Preset.on`), a clip that
    sampling begins from, and clips that the model is shown."""

    seed: int
    steps: int | None
    guidance: float | None
    solver: str | None
    projected: bool | None
    preset: str | None
    begin: Begin | None
    beside: Beside | None


_SAMPLING = ("seed", "steps", "guidance", "solver", "projected", "begin", "beside")


class Verbs:
    """The ways as methods; see the functions of the same names. All raise CanvasError, ConfigError for a preset,
    MediaError; TypeError for an option that there is not. Several seeds of one canvas: `run_many`."""

    native: Native

    def run_many(self, canvas: Canvas, seeds: Sequence[int], **settings: Any) -> tuple[Clip, ...]:
        """One clip a seed."""
        raise NotImplementedError

    def make(self, way: Callable[..., Canvas], *given: Any, **options: Any) -> Clip:
        """Draws the way's canvas from what is given and those options that are its own, and fills it."""
        own = {name for name, each in inspect.signature(way).parameters.items() if each.kind is each.KEYWORD_ONLY}
        known = (own - {"native"}) | set(Options.__annotations__) | set(Asked.__annotations__)
        for key in options.keys() - known:
            raise TypeError(f"{way.__name__} has no option {key!r}; there are {', '.join(sorted(known))}")
        sampling = {key: options.pop(key) for key in _SAMPLING if key in options}
        name = options.pop("preset", None)
        if name is None:
            return self._fill(way(*given, native=self.native, **options), sampling)
        preset = find_preset(name)
        sampling = {"steps": None, "guidance": None} | sampling
        filled = preset.fill(sampling)
        from_text = (ways.text_to_video, ways.text_to_image)
        if way in from_text or (way is ways.loop and given[:1] == (None,)):  # nothing given has a shape
            options["aspect"] = preset.fill(options).get("aspect")
        canvas = preset.on(way(*given, native=self.native, **options))
        return self._fill(canvas, {key: filled[key] for key in sampling})

    def _fill(self, canvas: Canvas, sampling: dict[str, Any]) -> Clip:
        return self.run_many(canvas, [sampling.pop("seed", 0)], **sampling)[0]

    def image(self, prompt: str, **options: Unpack[Options]) -> Clip:
        """One picture of `prompt`, as a clip of one frame."""
        return self.make(ways.text_to_image, prompt, **options)

    def animate(
        self, image: Picture, prompt: str = "", *, seconds: float | None = None, **options: Unpack[Options]
    ) -> Clip:
        """A video that starts from `image`."""
        return self.make(ways.image_to_video, image, prompt, seconds=seconds, **options)

    def extend(
        self,
        clip: Picture,
        prompt: str = "",
        *,
        seconds: float | None = None,
        backward: bool = False,
        **options: Unpack[Options],
    ) -> Clip:
        """The clip and what comes after it, or before."""
        return self.make(ways.extend, clip, prompt, seconds=seconds, backward=backward, **options)

    def loop(
        self, clip: Picture | None = None, prompt: str = "", *, seconds: float | None = None, **options: Unpack[Options]
    ) -> Clip:
        """A video of the clip, or of the prompt alone, whose end leads into its beginning."""
        return self.make(ways.loop, clip, prompt, seconds=seconds, **options)

    def remix(self, clip: Picture, prompt: str, *, strength: str | float = "mild", **options: Unpack[Options]) -> Clip:
        """The clip under a new prompt."""
        return self.make(ways.remix, clip, prompt, strength=strength, **options)

    def inpaint(self, clip: Picture, prompt: str, mask: Picture, **options: Unpack[Options]) -> Clip:
        """The clip with what is white in the mask invented."""
        return self.make(ways.inpaint, clip, prompt, mask, **options)

    def fill(
        self,
        cards: Sequence[tuple[float, Picture]],
        prompt: str = "",
        *,
        seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Clip:
        """Pictures and clips at their times in seconds, and what is between."""
        return self.make(join.fill, cards, prompt, seconds=seconds, **options)

    def blend(
        self,
        a: Picture,
        b: Picture,
        prompt: str = "",
        *,
        curve: str = "transition",
        seconds: float | None = None,
        **options: Unpack[Options],
    ) -> Clip:
        """From one clip into another."""
        return self.make(join.blend, a, b, prompt, curve=curve, seconds=seconds, **options)

    def recut(
        self,
        clip: Picture,
        keep: Sequence[tuple[float, float]],
        prompt: str = "",
        *,
        to: float | None = None,
        **options: Unpack[Options],
    ) -> Clip:
        """Pieces of the clip, and what is between and after them."""
        return self.make(join.recut, clip, keep, prompt, to=to, **options)

    def storyboard(self, board: boards.Board | str | Path, **options: Unpack[Options]) -> Clip:
        """The cards of a storyboard."""
        return self.make(boards.storyboard, board, **options)
