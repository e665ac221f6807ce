"""The default captioner: what is read off a clip is told as the video models' captions are."""

from __future__ import annotations

from yozora.captions.caption import Caption, Event
from yozora.captions.seeing import Eyes, Read, see
from yozora.clip import Clip
from yozora.errors import ModelError
from yozora.world.words.partial import FactTeller, tell_facts

LEAST = 0.2  # seconds that something stands still before it moves, for that to be told


class WorldCaptioner:
    """See `yozora.captions.caption.Captioner`. Knows the simulated world alone, and takes everything for it."""

    name = "world"

    def __init__(self, language: str = "en", eyes: Eyes | None = None) -> None:
        """`eyes`: the networks that read; None: the shipped ones."""
        self.language, self.eyes = language, eyes

    def caption(self, clip: Clip) -> Caption:
        """Raises ModelError where nothing is found in it."""
        return self.tell(see(clip, self.eyes))

    def tell(self, read: Read) -> Caption:
        """What was read, in words. Raises ModelError where that is nothing."""
        if "shape" not in read.facts:
            raise ModelError("no thing of the simulated world is found in it")
        short, dense = (tell_facts(read.facts, self.language, detail) for detail in ("short", "dense"))
        return Caption(short=short, dense=dense, events=tuple(self._events(read)))

    def _events(self, read: Read) -> list[Event]:
        """What the main thing does from when on, and that it stands still before."""
        if "motion" not in read.facts:
            return []
        teller, end = FactTeller(read.facts, self.language), round(read.seconds, 2)
        start = round(read.start, 2) if LEAST <= read.start <= end - LEAST else 0.0
        resting = [Event(start=0, end=start, what=teller.resting(0))] if start else []
        return [*resting, Event(start=start, end=end, what=teller.doing(0))]
