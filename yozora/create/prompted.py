"""What the model says of clips under their prompts: the velocity that sampling follows, for one clip or a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from yozora.create.beside import Beside
from yozora.create.canvas import Canvas
from yozora.create.settings import Settings
from yozora.create.sizes import Grid
from yozora.diffusion import (
    FLOW_MAP,
    UNROUNDED,
    Text,
    Velocity,
    cue_text,
    flow_map,
    guided,
    in_whole_levels,
    join,
    of_some,
    row_by_row,
)
from yozora.diffusion.beside import guided_beside
from yozora.diffusion.reuse import Reuse
from yozora.models.registry import Bundle
from yozora.models.shared import Halved, Shared
from yozora.models.transformer import Transformer


class Prompted:
    """A model, and the texts of all prompts of some canvases, each encoded once."""

    def __init__(
        self, bundle: Bundle, grid: Grid, canvases: Sequence[Canvas], settings: Settings, beside: Beside | None
    ) -> None:
        self.bundle, self.grid, self.settings, self.beside = bundle, grid, settings, beside
        prompts = {cue.prompt for canvas in canvases for cue in canvas.cues}
        if not all(canvas.cues for canvas in canvases):
            prompts.add("")
        if settings.guidance != 1:
            prompts |= {canvas.negative for canvas in canvases}
        self.texts = {prompt: self._encode(prompt) for prompt in prompts}

    def velocity(self, parts: Sequence[Canvas], count: int, wanted: Callable[[int], bool]) -> Velocity:
        """Of a batch of `count` clips, whose canvases are `parts`, one each or one for all; at each step nothing is
        worked out for those that are not `wanted` any more, by their places. On a CPU each is sampled by itself, and
        so to the bit what it is alone; elsewhere all are one pass."""
        by_itself = self.bundle.device.type == "cpu"
        if by_itself and self.bundle.reuse:  # each has a past of its own
            parts = [parts[place % len(parts)] for place in range(count)]
        each = [self._pass([part]) for part in parts] if by_itself else []

        def make(places: Sequence[int]) -> Velocity:
            if by_itself:
                return row_by_row([each[place % len(each)] for place in places])
            return self._pass([parts[place % len(parts)] for place in places])

        return of_some(make, lambda: [place for place in range(count) if wanted(place)])

    @torch.inference_mode()
    def _pass(self, parts: Sequence[Canvas]) -> Velocity:
        """The velocity of clips under their parts' prompts, in one pass of the model."""
        text, guidance = join(*map(self._text, parts)), self.settings.guidance
        if self.settings.solver == FLOW_MAP and self.bundle.few_steps is not None:
            return flow_map(self._shared(self.bundle.few_steps), text)
        null = None if guidance == 1 else join(*(self.texts[part.negative] for part in parts))
        model = self._shared(self.bundle.transformer)
        if self.bundle.reuse and not isinstance(model, Halved):
            model = Reuse(model, self.bundle.reuse)
        given, projected = (text, null, guidance), self.settings.projected
        if self.beside is not None:
            return guided_beside(self.bundle.transformer, *given, self.beside.on(self.bundle), projected)
        velocity = guided(model, *given, self.bundle.interval, projected)
        card = self.bundle.card
        if card.whole_levels is None:
            return velocity
        schedule = UNROUNDED.get(card.schedule)
        exact = None if schedule is None else schedule(self.settings.steps, card.shift_for(parts[0].size))
        return in_whole_levels(velocity, card.whole_levels, exact)

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Text:
        return self.bundle.text_encoder([prompt])

    def _text(self, part: Canvas) -> Text:
        """What one clip follows."""
        states = [self.texts[cue.prompt] for cue in part.cues] or [self.texts[""]]
        if len(states) == 1:
            return states[0]
        return cue_text(states, torch.from_numpy(part.cue_map(self.grid)).to(self.bundle.device))

    def _shared(self, model: Transformer) -> Transformer | Shared | Halved:
        """The model, by all processes that share its work: of two, each does a half of guidance, unless work is to be
        used again, which is decided for both halves at once."""
        team = self.bundle.team
        if team is None:
            return model
        halved = team.size() == 2 and self.settings.guidance != 1 and not self.bundle.reuse
        return Halved(model, team) if halved else Shared(model, team)
