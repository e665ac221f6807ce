"""Parts whose weights lie elsewhere until they run: in the computer's memory, beside a GPU, or on the disk.

While one block runs, the next one's weights are on their way; once it has run, they are dropped. So a device holds two
blocks at a time, whatever the depth, and of an autoencoder the half that is at work. What a part computes is the same
to the bit.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.pieces import Pieces, packed_matrix
from yozora.models.transformer import KeyValue

PLACES = ("cpu", "disk")
ALIGNED = 64  # bytes, so that numbers of any type may be looked at where they lie

State = dict[str, Tensor]


class Away(nn.Module):
    """A part of a network, for evaluation, that is called as it is, but whose weights are on a shelf until then."""

    def __init__(self, part: nn.Module, shelf: Shelf) -> None:
        super().__init__()
        self.shelf, self.number = shelf, shelf.put(part.state_dict())
        self.empty = {name: tensor.to("meta") for name, tensor in part.state_dict().items()}
        self.part = part
        part.load_state_dict(self.empty, assign=True)

    @torch.no_grad()
    def forward(self, *given: Any) -> Any:
        """As the part's."""
        with self.filled(self.arrange) as part:
            return part(*given)

    def arrange(self, state: State) -> State:
        """The weights as they are run, of those that lay on the shelf."""
        return state

    @contextmanager
    def filled(self, arrange: Callable[[State], State]) -> Iterator[Any]:
        """The part with its weights, for as long as this lasts."""
        self.part.load_state_dict(arrange(self.shelf.take(self.number)), assign=True)
        try:
            yield self.part
        finally:
            self.part.load_state_dict(self.empty, assign=True)


class AwayBlock(Away):
    """A block of the transformer; with `packed`, as `yozora.models.pieces` packs it whenever it has come."""

    def __init__(self, block: nn.Module, shelf: Shelf, packed: bool = False) -> None:
        super().__init__(block, shelf)
        self.packs = block.pack() if packed and isinstance(block, Pieces) else frozenset[str]()

    def arrange(self, state: State) -> State:
        return {name: packed_matrix(state.pop(name)) if name in self.packs else state.pop(name) for name in list(state)}

    @property
    def cross(self) -> AwayBlock:
        """What makes keys and values of a text: the block's cross-attention, as all of it when it is asked."""
        return self

    @torch.no_grad()
    def key_value(self, text: Tensor) -> KeyValue:
        """As `yozora.models.transformer.CrossAttention`."""
        with self.filled(lambda state: state) as block:  # the matrices that this takes are not packed
            return block.cross.key_value(text)


class OnDisk:
    """Tensors in a file without a name, which is gone with the process, however that ends. Raises OSError."""

    def __init__(self, state: State) -> None:
        self.tensors: dict[str, tuple[torch.dtype, torch.Size, tuple[int, ...], int]] = {}
        self.size = 0
        with tempfile.TemporaryFile() as file:
            for name, tensor in state.items():
                place, tensor = math.ceil(self.size / ALIGNED) * ALIGNED, dense(tensor.cpu())
                self.tensors[name] = (tensor.dtype, tensor.shape, tensor.stride(), place)
                file.seek(place)
                self.size = place + file.write(
                    tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data
                )
            file.flush()
            self.file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.file)

    def read(self) -> State:
        """The tensors, memory-mapped anew, so that what was read is dropped with them; the disk begins to read."""
        whole = mmap.mmap(self.file, self.size, access=mmap.ACCESS_COPY)
        if hasattr(whole, "madvise"):
            whole.madvise(mmap.MADV_WILLNEED)
        numbers = torch.frombuffer(whole, dtype=torch.uint8)
        return {
            name: numbers[place : place + shape.numel() * dtype.itemsize].view(dtype).as_strided(shape, strides)
            for name, (dtype, shape, strides, place) in self.tensors.items()
        }


def dense(tensor: Tensor) -> Tensor:
    """A tensor whose numbers lie without gaps, in whatever order: most are."""
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor if reach == tensor.numel() else tensor.contiguous()


class Shelf:
    """Where weights of parts are that run on `device`; `ahead`: one after another, over and over, so that the next
    one's set out while one runs. Raises ModelError where the place is the device, and for a full disk."""

    def __init__(self, device: torch.device, place: str, ahead: bool = True) -> None:
        if place == "cpu" and device.type == "cpu":
            raise ModelError("on a CPU the weights are in its memory anyway: offload to disk")
        self.device, self.place, self.ahead = device, place, ahead
        self.states: list[State | OnDisk] = []
        self.reader = ThreadPoolExecutor(1, "offload")
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.coming: tuple[int, Future[tuple[State, Any]]] | None = None

    def put(self, state: State) -> int:
        """Keeps a part's weights; its number."""
        if self.place == "cpu":
            self.states.append({name: each.cpu().pin_memory() for name, each in state.items()})
            return len(self.states) - 1
        try:
            self.states.append(OnDisk(state))
        except OSError as error:
            raise ModelError(
                f"cannot write to {tempfile.gettempdir()} ({error.strerror}): offloading to disk needs room for the "
                "weights there; TMPDIR names another folder"
            ) from None
        return len(self.states) - 1

    def take(self, number: int) -> State:
        """A part's weights on the device; those of the next one set out."""
        if self.coming is None or self.coming[0] != number:
            self.coming = number, self.reader.submit(self._fetch, number)
        state, arrived = self.coming[1].result()
        if arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(arrived)
            for tensor in state.values():
                tensor.record_stream(stream)
        following, self.coming = (number + 1) % len(self.states), None
        if self.ahead:
            self.coming = following, self.reader.submit(self._fetch, following)
        return state

    def _fetch(self, number: int) -> tuple[State, Any]:
        """A part's weights, and the event after which a GPU has them."""
        kept = self.states[number]
        state = kept.read() if isinstance(kept, OnDisk) else kept
        if self.stream is None:
            return {name: tensor.to(self.device) for name, tensor in state.items()}, None
        with torch.cuda.stream(self.stream):
            moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in state.items()}
        return moved, self.stream.record_event()
