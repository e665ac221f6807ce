"""Loaded models: each once, as many as fit into a memory budget; of those that nobody uses, the one that was used
longest ago goes first. Where all are in use, who wants another one waits."""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter, OrderedDict, abc, deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from yozora.create.canvas import Canvas
from yozora.create.enhance import load_enhancer
from yozora.create.events import Chunk, Progress
from yozora.create.generator import Generator, choose_device, load, read_native
from yozora.create.sizes import Native
from yozora.models.registry import find_model
from yozora.prompts import DEFAULT, load_rewriter
from yozora.serve.batches import Batches

if TYPE_CHECKING:
    from yozora.models.enhancer import Enhancer
    from yozora.prompts import Rewriter
    from yozora.serve.team import Team

__all__ = ["Models"]

MOST = 2  # models, where no budget is named
PAUSE = 0.5  # seconds after which who waits for a model asks whether it is still wanted
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Loading:
    """A model on its way, and who wants it."""

    name: str
    wanted: bool = True
    done: threading.Event = field(default_factory=threading.Event)
    generator: Generator | None = None
    error: BaseException | None = None


class Models:
    """The models of one worker on its device. `budget` is in bytes of parameters; 0 is MOST models of any size.
    `group`: the processes that share the tokens of each clip; `team`: how the first of them leads the others."""

    def __init__(
        self,
        device: str = "auto",
        budget: int = 0,
        group: dist.ProcessGroup | None = None,
        team: Team | None = None,
    ) -> None:
        self.group, self.team = group, team
        self.device = choose_device(device)
        self.budget = budget
        self._loaded: OrderedDict[str, tuple[Generator, int]] = OrderedDict()
        self._lock = threading.Condition()
        self._held: Counter[str] = Counter()  # how many use each
        self._line: deque[object] = deque()  # who waits for a model, in the order in which they came
        self._coming: str | None = None  # the one that is being loaded, without the lock: it takes minutes
        self._words = threading.Lock()
        self.batches = Batches()
        self._rewriters: dict[str, Rewriter] = {}

    def get(self, name: str | None) -> Generator:
        """The model, loaded where it is not yet. Raises ModelError."""
        with self.using(name) as generator:
            return generator

    @contextmanager
    def using(self, name: str | None, still: Callable[[], None] | None = None) -> abc.Iterator[Generator]:
        """The model, which is not let go of before the end of the block. Nobody may want a second one in it. `still`
        is called again and again while there is no room, or the model is being loaded: what it raises ends the waiting,
        and a model that is on its way then comes for others. Raises ModelError."""
        name = name or "mini"
        generator = self._hold(name, still)
        try:
            yield generator
        finally:
            with self._lock:
                self._held[name] -= 1
                self._lock.notify_all()

    def _hold(self, name: str, still: Callable[[], None] | None) -> Generator:
        """A model, counted as in use. Who waits does so in a line, and holds nothing that others need."""
        size, ticket = None, object()
        with self._lock:
            self._line.append(ticket)
        try:
            while True:
                with self._lock:
                    if self._line[0] is ticket:
                        if name in self._loaded:
                            return self._take(name)
                        if size is not None and self._coming is None and self._make_room(size):
                            self._coming = name
                            break
                    if size is not None:
                        self._lock.wait(PAUSE)
                if size is None:
                    size = size_on_disk(name)
                if still is not None:
                    still()  # without the lock: it may ask a database
        finally:
            with self._lock:
                self._line.remove(ticket)
                self._lock.notify_all()
        return self._wait_for(_Loading(name), still)

    def _take(self, name: str) -> Generator:
        """One that is loaded, by who has the lock."""
        self._loaded.move_to_end(name)
        self._held[name] += 1
        return self._loaded[name][0]

    def _wait_for(self, loading: _Loading, still: Callable[[], None] | None) -> Generator:
        """The model, once it is loaded, counted as in use. Loading cannot be broken off: who may have to stop waits
        beside it."""
        try:
            if still is None:
                self._load(loading)
            else:
                threading.Thread(target=self._load, args=(loading,), name="load").start()
                while not loading.done.wait(PAUSE):
                    still()
        except BaseException:
            with self._lock:
                loading.wanted = False
                if loading.generator is not None:
                    self._held[loading.name] -= 1
                    self._lock.notify_all()
            raise
        if loading.error is not None:
            raise loading.error
        assert loading.generator is not None
        return loading.generator

    def _load(self, loading: _Loading) -> None:
        """Loads the model for which there is room now; nobody else loads one meanwhile."""
        name = loading.name
        try:
            generator = load(name, str(self.device), team=self.group)
            size = size_of(generator)
            with self._lock:
                self._make_room(size)  # what lay there may have been smaller; it is there now, so nothing is waited for
                self._loaded[name] = (generator, size)
                if loading.wanted:
                    loading.generator = generator
                    self._held[name] += 1
            _log.info("model loaded", extra={"model": name, "bytes": size})
        except BaseException as error:
            loading.error = error
        finally:
            with self._lock:
                self._coming = None
                self._lock.notify_all()
            loading.done.set()

    def stream(
        self,
        name: str | None,
        canvases: Sequence[Canvas],
        seeds: Sequence[int],
        left: AbstractSet[int] = frozenset(),
        **asked: Any,
    ) -> abc.Generator[Progress | Chunk]:
        """As `Generator.stream` of a model, by all processes of the worker, which make one video at a time: so `left`
        concerns none of them. Raises CanvasError, ModelError."""
        with self._lock:  # who uses it already does not stand in line for it
            held = self._held[name or "mini"] > 0
            generator = self._loaded[name or "mini"][0] if held else None
        events = (generator or self.get(name)).stream(canvases, seeds, left=left, **asked)
        return events if self.team is None else self.team.lead(name or "mini", canvases, seeds, asked, events)

    def native(self, name: str | None) -> Native:
        """What a model makes, without loading it. Raises ModelError."""
        with self._lock:
            loaded = self._loaded.get(name or "mini")
        return loaded[0].native if loaded else read_native(name or "mini")

    def enhancer(self) -> Enhancer:
        """The network that enlarges. Raises ModelError where there are no weights."""
        return load_enhancer(device=self.device)

    def rewriter(self, model: str | None, name: str, asked: bool | None) -> Rewriter | None:
        """Who puts prompts for a model into other words, `name` as in the settings: None where nobody does. Raises
        ConfigError, ModelError."""
        shipped = (model or "mini") == "mini"
        if name == "none" or not ((bool(name) or shipped) if asked is None else asked):
            return None
        with self._words:
            key = f"{name or DEFAULT}, {shipped}"
            if key not in self._rewriters:
                self._rewriters[key] = load_rewriter(name or DEFAULT, world=shipped)
            return self._rewriters[key]

    @property
    def names(self) -> list[str]:
        """The models that are loaded."""
        with self._lock:
            return list(self._loaded)

    def _make_room(self, size: int) -> bool:
        """Lets go of models that nobody uses until one more, of `size` bytes, may be there; whether it may."""
        while self._loaded and (
            sum(each for _, each in self._loaded.values()) + size > self.budget
            if self.budget
            else len(self._loaded) >= MOST
        ):
            name = next((each for each in self._loaded if not self._held[each]), None)
            if name is None:
                return False
            del self._loaded[name]
            _log.info("model let go", extra={"model": name})
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return True


def size_on_disk(name: str) -> int:
    """Bytes of a model's weights as they lie there: what it will take, about, known before it is loaded. Raises
    ModelError."""
    return sum(file.stat().st_size for file in find_model(name).rglob("*.safetensors"))


def size_of(generator: Generator) -> int:
    """Bytes of a model's parameters."""
    bundle = generator.bundle
    networks = [
        bundle.transformer,
        bundle.autoencoder,
        bundle.text_encoder,
        *([bundle.adapter] if bundle.adapter else []),
    ]
    return sum(each.numel() * each.element_size() for network in networks for each in network.parameters())
