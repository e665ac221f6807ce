"""An order: what is to be made, checked where it comes in; every way of creating with all its parameters.

What is given (clips, pictures, masks) is referred to by id: a video of the library ("video_…"), an upload ("file_…")
or a character ("char_…"). `draw` turns an order, with these as files, into the canvas of its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from yozora.create.board import MAX_CARDS, Board
from yozora.create.board import storyboard as board_canvas
from yozora.create.canvas import MAX_PROMPT, Canvas, Cue, check_prompt
from yozora.create.given import Fit
from yozora.create.join import blend, check_pieces, check_time, fill, parse_curve, recut
from yozora.create.limits import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, check_guidance, check_steps
from yozora.create.presets import Preset, find_preset
from yozora.create.settings import check_solver
from yozora.create.sizes import Native, check_seconds, choose_size
from yozora.create.target import Target, choose_target, enlarged
from yozora.create.ways import (
    extend,
    image_to_video,
    inpaint,
    loop,
    parse_strength,
    remix,
    text_to_image,
    text_to_video,
)
from yozora.errors import CanvasError, ConfigError
from yozora.serve.bodies import Told
from yozora.serve.errors import ApiError, invalid

__all__ = ["Card", "Order", "Way", "draw", "parse_order", "sources_of", "target_of"]

Way = Literal[
    "generate", "image", "animate", "extend", "fill", "loop", "blend", "remix", "inpaint", "recut", "storyboard"
]
MAX_VARIATIONS = 8
T = TypeVar("T")
Id = Annotated[str, StringConstraints(pattern=r"^(video|file|char)_[0-9a-f]{32}$")]
Short = Annotated[str, StringConstraints(max_length=40)]
Seconds = Annotated[float, Field(gt=0, le=60)]
# What each way is given, besides words; the first of these is a must, those with "?" may be left out.
GIVEN: dict[str, tuple[str, ...]] = {
    "generate": (),
    "image": (),
    "animate": ("image",),
    "extend": ("clip",),
    "fill": ("cards",),
    "loop": ("clip?",),
    "blend": ("clip", "other"),
    "remix": ("clip",),
    "inpaint": ("clip", "mask"),
    "recut": ("clip", "keep"),
    "storyboard": ("cards",),
}
_GIVABLE = ("image", "clip", "other", "mask", "cards", "keep")
ROLES = ("image", "clip", "other", "mask")  # what an order may be given once


class Card(Told):
    """What a storyboard shows, or what is given to `fill`, from `at` seconds on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: float = Field(ge=0, le=60)
    prompt: str = Field(default="", max_length=MAX_PROMPT)
    source: Id | None = None


class Order(Told):
    """What is to be made. What is None is as the model was trained, or as what is given is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    way: Way = "generate"
    prompt: str = Field(default="", max_length=MAX_PROMPT)
    negative: str = Field(default="", max_length=MAX_PROMPT)
    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    # what is given
    image: Id | None = None
    clip: Id | None = None
    other: Id | None = Field(default=None, description="What `blend` ends as.")
    mask: Id | None = Field(default=None, description="White where `inpaint` invents.")
    cards: tuple[Card, ...] = Field(default=(), max_length=MAX_CARDS)
    keep: tuple[tuple[float, float], ...] = Field(
        default=(), max_length=MAX_CARDS, description="Pieces that `recut` keeps."
    )
    # shape
    seconds: Seconds | None = None
    size: Short | None = Field(default=None, description="WIDTHxHEIGHT.")
    aspect: Short | None = None
    resolution: Short | None = None
    fit: Fit = "crop"
    enhance: Short | None = Field(default=None, description="The size it is enlarged to, WIDTHxHEIGHT or 1080p.")
    enhance_fps: float | None = Field(default=None, ge=1, le=120)
    # one way's own
    backward: bool = False
    strength: Short | float = "mild"
    curve: Annotated[str, StringConstraints(max_length=2000)] = "transition"
    to: Seconds | None = Field(default=None, description="The end of a `recut`.")
    # sampling
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=MAX_GUIDANCE)
    solver: Short | None = None
    preset: Annotated[str, StringConstraints(max_length=200)] | None = None
    rewrite: bool | None = Field(
        default=None, description="Put prompts into the model's own words first; None: as usual."
    )
    previews: bool = Field(default=False, description="Show a frame at every step.")

    @property
    def style(self) -> Preset | None:
        """The preset. Raises ConfigError."""
        return None if self.preset is None else find_preset(self.preset)

    @property
    def sampling(self) -> dict[str, Any]:
        """Steps, guidance and solver, with the preset's where nothing is said. Raises ConfigError."""
        asked = {"steps": self.steps, "guidance": self.guidance}
        filled = asked if self.style is None else self.style.fill(asked)
        return {key: filled[key] for key in asked} | {"solver": self.solver}

    @property
    def likeness(self) -> dict[str, Any]:
        """What orders have in common whose videos can, as far as that shows before what is given has been looked at, be
        sampled in one batch: all but words, seeds, which files are given, and what is done with the frames."""
        apart = {"prompt", "negative", "seed", "rewrite", "enhance", "enhance_fps", "image", "clip", "other", "mask"}
        cards = [(card.at, bool(card.prompt), card.source is None) for card in self.cards]
        return self.model_dump(exclude=apart) | {"cards": cards, "negative": bool(self.negative)}

    @property
    def asked(self) -> dict[str, Any]:
        """What every way takes."""
        return {key: getattr(self, key) for key in ("size", "aspect", "resolution", "fit", "negative")}

    @property
    def asked_freely(self) -> dict[str, Any]:
        """The same for a way that is given nothing with a shape of its own: the preset's aspect counts."""
        return self.asked if self.style is None else self.asked | {"aspect": self.style.fill(self.asked)["aspect"]}

    def within(self, native: Native) -> Order:
        """The same, but a resolution far above what the model was trained on is what its result is enlarged to, as on
        the command line. Raises ApiError."""
        if self.enhance is not None or self.size is not None:
            return self
        try:
            larger = enlarged(native, self.asked_freely["aspect"], self.resolution)
        except CanvasError as error:
            raise invalid(str(error), "resolution") from None
        return self if larger is None else self.model_copy(update={"resolution": None, "enhance": larger})

    def check(self, native: Native) -> None:
        """Raises ApiError for what no run could do, as far as that can be said without looking at what is given."""
        needed = GIVEN[self.way]
        for name in _GIVABLE:
            there = getattr(self, name) not in (None, ())
            if name in needed and not there:
                raise invalid(f"{self.way} needs {name}", name, "missing_required_parameter")
            if there and name not in needed and f"{name}?" not in needed:
                raise invalid(f"{self.way} takes no {name}", name)
        try:
            self._check(native)
        except CanvasError as error:
            raise invalid(str(error)) from None

    def _check(self, native: Native) -> None:
        words = self.way in ("generate", "image", "remix", "inpaint") or (self.way == "loop" and self.clip is None)
        named("prompt", check_prompt, self.prompt, words)
        named("negative", check_prompt, self.negative, False, "negative prompt")
        checks = {"seconds": check_seconds, "steps": check_steps, "guidance": check_guidance, "solver": check_solver}
        for name, check in checks.items():
            if (value := getattr(self, name)) is not None:
                named(name, check, value)
        if self.seconds is not None and self.seconds * native.fps < 0.5:
            raise invalid(f"{self.seconds:g} s is no frame: ask for {1 / native.fps:.3f} s or more", "seconds")
        named("strength", parse_strength, self.strength)
        named("curve", parse_curve, self.curve)
        if self.keep:
            named("keep", check_pieces, self.keep)
        for card in self.cards:
            check_time(card.at)
            if (self.way == "fill" and card.source is None) or not (card.prompt or card.source):
                raise CanvasError(f"the card at {card.at:g} s shows nothing: give it a source or a prompt")
        said = next((name for name in ("size", "aspect", "resolution") if getattr(self, name) is not None), "size")
        size = named(said, choose_size, native, self.size, self.aspect, self.resolution)
        named("enhance", target_of, self, size, native.fps, native.frames_max)
        if not any(True for _ in sources_of(self)):
            canvas = draw(self, native, {})
            named(said, canvas.check, native.grid)
            frames = min(canvas.frames, native.frames_max)
            named(said, native.check_tokens, canvas.width, canvas.height, frames)


def parse_order(raw: Mapping[str, Any]) -> Order:
    """An order from what a client sent, in which numbers may be texts. Raises ApiError that names the parameter."""
    try:
        return Order.model_validate({key: value for key, value in raw.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])) or None
        code = "unknown_parameter" if first["type"] == "extra_forbidden" else "invalid_value"
        raise invalid(f"{name or 'the order'}: {first['msg']}", name, code) from None


def named_in(stored: Mapping[str, Any]) -> Iterator[str]:
    """The ids of everything that an order is given which is kept as JSON, of whatever version."""
    for part in (stored, *stored.get("cards", ())):
        yield from (found for role in (*ROLES, "source") if isinstance(found := part.get(role), str))


def sources_of(order: Order) -> Iterator[tuple[str, str]]:
    """(role, id) of everything an order is given."""
    for role in ROLES:
        if (found := getattr(order, role)) is not None:
            yield role, found
    for card in order.cards:
        if card.source is not None:
            yield "card", card.source


def draw(order: Order, native: Native, files: Mapping[str, Path]) -> Canvas:
    """The canvas of an order; `files` are where its sources lie. Raises CanvasError, ConfigError, MediaError."""
    canvas = _draw(order, native, lambda name: files[name] if name is not None else None)
    return canvas if order.style is None else order.style.on(canvas)


def _draw(order: Order, native: Native, file: Any) -> Canvas:
    prompt, seconds, asked = order.prompt, order.seconds, order.asked
    clip = file(order.clip)
    match order.way:
        case "generate":
            return text_to_video(prompt, native=native, seconds=seconds, **order.asked_freely)
        case "image":
            return text_to_image(prompt, native=native, **order.asked_freely)
        case "animate":
            return image_to_video(file(order.image), prompt, native=native, seconds=seconds, **asked)
        case "extend":
            return extend(clip, prompt, native=native, seconds=seconds, backward=order.backward, **asked)
        case "loop":
            free = order.asked_freely if clip is None else asked
            return loop(clip, prompt, native=native, seconds=seconds, **free)
        case "remix":
            return remix(clip, prompt, native=native, strength=order.strength, **asked)
        case "inpaint":
            return inpaint(clip, prompt, file(order.mask), native=native, **asked)
        case "blend":
            other = file(order.other)
            return blend(clip, other, prompt, native=native, curve=order.curve, seconds=seconds, **asked)
        case "recut":
            return recut(clip, order.keep, prompt, native=native, to=order.to, **asked)
        case "fill":
            cards = [(card.at, file(card.source)) for card in order.cards]
            return fill(cards, prompt, native=native, seconds=seconds, **asked)
        case "storyboard":
            return board_canvas(_board(order, file), native=native, **asked)
    raise CanvasError(f"there is no way {order.way!r}; known: {', '.join(get_args(Way))}")


def _board(order: Order, file: Any) -> Board:
    cards = sorted(order.cards, key=lambda card: card.at)
    cues = tuple(Cue(card.at, card.prompt) for card in cards if card.prompt)
    files = tuple((card.at, file(card.source)) for card in cards if card.source)
    if len({card.at for card in cards}) < len(cards):
        raise CanvasError("two cards are at the same time: move one, or make them one")
    return Board(cues, files, order.seconds, {})


def target_of(order: Order, size: tuple[int, int], fps: float, frames: int) -> Target | None:
    """What a video of that size, rate and length is enhanced to, if that is asked; a picture stays one. Raises
    CanvasError."""
    if order.enhance is None and order.enhance_fps is None:
        return None
    rate = order.enhance_fps if frames > 1 else None
    larger = size if order.enhance is None else order.enhance
    return choose_target(size, fps, larger, rate, order.fit, order.aspect)


def expected(order: Order, native: Native) -> tuple[tuple[int, int], float]:
    """(width, height) and seconds of what an order will become, as far as they are known before what is given has been
    looked at. Raises ApiError."""
    try:
        if not any(True for _ in sources_of(order)):
            canvas = draw(order, native, {})
            size, seconds, frames = canvas.size, order.seconds or canvas.shown / canvas.fps, canvas.shown
        else:
            size = named("size", choose_size, native, order.size, order.aspect, order.resolution)
            last = max((end for _, end in order.keep), default=0)  # what is kept stays where it was
            seconds = order.seconds or order.to or last or native.seconds_max
            frames = native.grid.nearest_frames(seconds, native.fps)
        target = target_of(order, size, native.fps, frames)
    except CanvasError as error:
        raise invalid(str(error)) from None
    return (target.size if target else size), seconds


def named(param: str, check: Callable[..., T], *values: Any) -> T:
    """What a check gives. Raises ApiError, which names the parameter, where it raises CanvasError or ConfigError."""
    try:
        return check(*values)
    except (CanvasError, ConfigError) as error:
        raise invalid(str(error), param) from None


def variations(raw: Any) -> int:
    """How many videos of one order, 1 to MAX_VARIATIONS. Raises ApiError."""
    try:
        count = int(raw if raw is not None else 1)
    except (TypeError, ValueError):
        count = 0
    if not 1 <= count <= MAX_VARIATIONS:
        raise ApiError(
            400, f"variations is a number from 1 to {MAX_VARIATIONS}", code="invalid_value", param="variations"
        )
    return count
