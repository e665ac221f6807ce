"""The library that `yozora generate --library` was given: what sampling begins from, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yozora.cli.options import DEFAULT_MODEL
from yozora.errors import CanvasError, ConfigError

if TYPE_CHECKING:
    from yozora.cli.making import Video
    from yozora.create import Canvas, Generator
    from yozora.create.begin import Begin
    from yozora.create.beside import Beside
    from yozora.create.settings import Settings
    from yozora.prompts.library import Library
    from yozora.prompts.stock import Coder


@dataclass(frozen=True)
class Named:
    """The clips that a recipe names: that which sampling began from ("": none), the ground that it was put onto ("":
    its own), and those that the model was shown."""

    begin: str = ""
    ground: str = ""
    beside: tuple[str, ...] = ()


@dataclass
class Shelf:
    """A library in use. `share`: of the steps, that a close clip saves; `retrieval`: how much the clips count that the
    model is shown beside the prompt; `version`: of the model's autoencoder. `again`: the clips that a recipe names;
    none are looked for."""

    library: Library
    share: float
    retrieval: float | None
    version: str
    again: Named | None = None
    coder: Coder | None = None
    said: dict[str, Any] = field(default_factory=dict)

    def begin(self, canvas: Canvas, generator: Generator, settings: Settings) -> Begin | None:
        """What sampling begins from, if anything; says so on stderr."""
        from yozora.create.begin import Begin
        from yozora.prompts.retrieval import begun_from, coder_of, warm_start

        reason = self.library.check_latents(self.version)
        if reason:
            print(f"warning: {reason}", file=sys.stderr)
        else:
            self.coder = coder_of(generator, self.version)
        if self.again:
            if reason:
                raise ConfigError(f"this was made with clips of a library, but {reason}")
            source, ground = self.again.begin, self.again.ground
            self.said = {"path": str(self.library.folder)} | ({"ground": ground} if ground else {})
            return Begin(begun_from(self.library, source, ground), self.share, source) if source else None
        warm = warm_start(self.library, canvas, generator, self.version, self.share)
        self.said = {"path": str(self.library.folder), **warm.to_dict()}
        if warm.begin is None or warm.match is None:
            if not reason:
                print(f"library: begun from noise: {warm.reason}", file=sys.stderr)
            return None
        skipped = warm.begin.skipped(settings.steps)
        onto = f"put onto another ground ({warm.ground}), " if warm.ground else ""
        said = f"{onto}{skipped} of {settings.steps} steps skipped"
        print(f"library: begun from {warm.match.source} ({warm.match.caption!r}), {said}", file=sys.stderr)
        return warm.begin

    def beside(self, canvas: Canvas, generator: Generator, settings: Settings) -> Beside | None:
        """What the model is shown beside the prompt, if anything; says so on stderr. Raises CanvasError where it is
        asked for and the model knows no such clips."""
        from yozora.create.beside import Beside, why_not
        from yozora.prompts.retrieval import clips_beside

        guidance = 1.0 if self.retrieval is None else self.retrieval
        if self.again:
            sources = self.again.beside
            return Beside([self.library.latents(each) for each in sources], guidance, sources) if sources else None
        if guidance and (reason := why_not(generator.bundle, settings)):
            if self.retrieval is None:
                return None
            raise CanvasError(f"{reason}: leave --retrieval-guidance out")
        found = clips_beside(self.library, canvas, generator, settings, self.version, guidance)
        if found.beside:
            print(f"library: shown beside the prompt: {', '.join(found.beside.sources)}", file=sys.stderr)
        elif guidance:
            print(f"library: no clip is shown beside the prompt: {found.reason}", file=sys.stderr)
        return found.beside

    def compare(self, made: list[Iterator[np.ndarray]], videos: list[Video]) -> list[Iterator[np.ndarray]]:
        """Finds the clip that each video is most like, and notes it in its recipe: all frames are made first. Those of
        a video longer than any clip of the library are passed on as they come, and not compared."""
        for video in videos:
            video.made = replace(video.made, library=self.said | video.made.library)
        longest = self.coder.native.window if self.coder else 0
        if self.coder is None or self.coder.native.grid.latent_frames(videos[0].canvas.frames) > longest:
            return made
        from yozora.prompts.retrieval import nearest_copy

        kept = [np.stack(list(frames)) for frames in made]
        for video, frames in zip(videos, kept, strict=True):
            if copy := nearest_copy(self.library, self.coder, frames):
                found = {"nearest": copy.source, "distance": round(copy.distance, 4)}
                video.made = replace(video.made, library=video.made.library | found)
        return [iter(frames) for frames in kept]

    def line(self, video: Video) -> str:
        """How like the library a video is."""
        said = video.made.library
        if self.coder is None:
            return "not compared with the library: its latents are of another version"
        if "nearest" not in said:
            return "not compared with the library: it has no clip of this size and length"
        return f"nearest clip of the library: {said['nearest']}, {said['distance']:.2f} away (0: a copy)"


def open_shelf(
    folder: Path, share: float, retrieval: float | None, model: str | None, again: Named | None = None
) -> Shelf:
    """See `Shelf`. Raises ConfigError, CanvasError, ModelError."""
    from yozora.create.begin import check_share
    from yozora.create.beside import check_retrieval_guidance
    from yozora.models.registry import autoencoder_version
    from yozora.prompts.library import open_library

    check_share(share)
    if retrieval is not None:
        check_retrieval_guidance(retrieval)
    return Shelf(open_library(folder), share, retrieval, autoencoder_version(model or DEFAULT_MODEL), again)
