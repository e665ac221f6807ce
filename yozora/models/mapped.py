"""Weights that another program saved, by its names for them: checked against ours, then read straight to their place.

A key map says, for each tensor of a module of ours, which tensors there make it, stacked where they are several (one
matrix for queries, keys and values). Files are memory-mapped and a tensor is read when its turn comes, onto the device
and in the type that it is to have, so that nothing is held twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from yozora.errors import ModelError
from yozora.models.folder import find_weights, first_line, unwritten

KeyMap = Mapping[str, tuple[str, ...]]
"""Our name of a tensor → the other program's names of those that make it, first rows first."""

Layout = Literal["diffusers", "original"]
"""Whose names: those of the diffusers library, or of the model's first release."""

Row = tuple[str, str, str, str]
"""Of a table of names: ours, diffusers', the original release's, and which tensors are so called: "weight bias", or ""
where the name is a tensor's own. Several names, by spaces, are stacked."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PICKLED = ".pth"
Module = TypeVar("Module", bound=nn.Module)


def key_map(rows: Iterable[Row], layout: Layout) -> KeyMap:
    """The key map that a table of names says."""
    keys = {}
    for ours, diffusers, original, tensors in rows:
        theirs = (diffusers if layout == "diffusers" else original).split()
        for tail in [f".{tensor}" for tensor in tensors.split()] or [""]:
            keys[ours + tail] = tuple(each + tail for each in theirs)
    return keys


def numbered(row: Row, ours: str, diffusers: str | None = None, original: str | None = None) -> Row:
    """A row of a part, as one of the whole: each name behind what it is part of (`ours`, where they agree)."""
    places = (ours, ours if diffusers is None else diffusers, ours if original is None else original)
    inside = (" ".join(place + name for name in names.split()) for place, names in zip(places, row, strict=False))
    mine, theirs, first = inside
    return mine, theirs, first, row[3]


class Stored:
    """The tensors of a checkpoint, none of which is read before it is asked for: `with Stored(…) as stored`.

    `place` is a folder with safetensors called `stem` (and an index, if there are several), or a .pth file, of which
    only tensors are taken: unpickling it runs nothing. Raises ModelError for what is missing, broken or truncated.
    """

    def __init__(self, place: Path, stem: str = "diffusion_pytorch_model") -> None:
        self.place = place
        self.shapes: dict[str, list[int]] = {}
        self._files: dict[str, Any] = {}
        self._pickled: dict[str, Tensor] = {}
        self._stack = ExitStack()
        if place.suffix == PICKLED:
            self._pickled = read_pickled(place)
            self.shapes = {name: list(tensor.shape) for name, tensor in self._pickled.items()}
            return
        for path, header in find_weights(place, stem).items():
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} is broken or truncated ({first_line(error)}); copy it again") from None
            self.shapes |= header
            self._files |= dict.fromkeys(header, file)

    def __enter__(self) -> Stored:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def read(self, name: str) -> Tensor:
        """One tensor, as it is in the file. Raises ModelError where it holds no floats."""
        try:
            tensor = self._pickled[name] if self._pickled else self._files[name].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self.place}: cannot read {name} ({first_line(error)}); copy it again") from None
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"{self.place}: {name} is of type {kind}; give the weights as float32, float16 or bfloat16"
            )
        return tensor


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, memory-mapped, by torch's unpickler that knows nothing but tensors. Raises
    ModelError."""
    if not path.is_file():
        raise ModelError(f"{path} is missing; copy the whole model folder")
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # a pickle can be broken in many ways, and one that would run code is refused
        raise ModelError(f"{path} is broken, or not only tensors ({first_line(error)}); copy it again") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{path} holds no tensors by name; copy it again")
    return state


def load_mapped(
    module: Module,
    keys: KeyMap,
    stored: Stored,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    exact: Callable[[str], bool] = lambda _: False,
    changes: Mapping[str, Tensor] | None = None,
    ignored: Iterable[str] = (),
) -> Module:
    """A module made on the meta device, with the weights that `keys` name, on `device` and of `dtype`, for evaluation.

    What is `exact` (by our name) stays float32. `changes` are added in float32 before that. `ignored` are names that
    may be there besides. Buffers that `keys` do not name stay as they are. Raises ModelError where tensors are missing,
    unknown or of other shapes.
    """
    expected = module.state_dict()
    check_keys({name: expected[name].shape for name in keys}, keys, stored, set(ignored))
    read_mapped(module, keys, stored, device, dtype, exact=exact, changes=changes)
    return module.eval().requires_grad_(False)


def read_mapped(
    module: nn.Module,
    keys: KeyMap,
    stored: Stored,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    exact: Callable[[str], bool] = lambda _: False,
    changes: Mapping[str, Tensor] | None = None,
    copy: bool = False,
) -> None:
    """Puts what `keys` name, which are some or all of a module's tensors, in their places, once they were checked. What
    is of the right type and place stays in the mapped file, unless `copy`: one tensor there keeps all that was read of
    the file in memory, so that few are not left there alone."""
    expected, state = module.state_dict(), {}
    for name, theirs in keys.items():
        wanted = torch.float32 if exact(name) else dtype
        change = None if changes is None else changes.get(name)
        parts = [stored.read(each) for each in theirs]
        if len(parts) == 1 and change is None:
            state[name] = parts[0].reshape(expected[name].shape).to(device, wanted, copy=copy or wanted != dtype)
            continue
        made = torch.empty(expected[name].shape, device=device, dtype=torch.float32 if change is not None else wanted)
        for place, part in zip(made.chunk(len(parts)), parts, strict=True):
            place.copy_(part.reshape(place.shape))
        state[name] = made if change is None else made.add_(change.to(device)).to(wanted)
    module.load_state_dict(state, strict=False, assign=True)


def check_keys(
    shapes: Mapping[str, Iterable[int]], keys: KeyMap, stored: Stored, ignored: set[str] | None = None
) -> None:
    """Raises ModelError unless the checkpoint has what makes tensors of these `shapes`, and nothing else."""
    wanted = {name for theirs in keys.values() for name in theirs}
    found = stored.shapes.keys()
    for problem, names in (("lacks", wanted - found), ("has unknown", found - wanted - (ignored or set()))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(
                f"{stored.place} {problem} {min(names)[:120]}{more}: it is of another model, or not all of it is there"
            )
    for name, shape in shapes.items():
        rows, *rest = shape
        for each in keys[name]:
            if not fits(stored.shapes[each], rows // len(keys[name]), math.prod(rest)):
                raise ModelError(
                    f"{stored.place}: {each} is {stored.shapes[each]}, which does not make {name} {list(shape)}: "
                    "configuration and weights are of different models"
                )


def fits(shape: list[int], rows: int, columns: int) -> bool:
    """Whether a tensor of a shape, but for axes of 1, has so many rows of so many numbers."""
    sizes = [size for size in shape if size != 1] or [1]
    return sizes[0] * math.prod(sizes[1:]) == rows * columns and (sizes[0] == rows or rows == 1)


def save_mapped(module: nn.Module, keys: KeyMap, path: Path, shape_there: Callable[[str, Tensor], list[int]]) -> None:
    """Writes a module's tensors in one safetensors file, by the other program's names, as they are. `shape_there` says
    of our name and a part of that tensor which shape it has there. Raises ModelError."""
    tensors, own = {}, module.state_dict()
    if own.keys() != keys.keys():
        raise ModelError("weights in pieces, in eight bits or elsewhere cannot be written: load them as they are")
    for name, tensor in own.items():
        for theirs, part in zip(keys[name], tensor.chunk(len(keys[name])), strict=True):
            tensors[theirs] = part.detach().to("cpu", copy=True).reshape(shape_there(name, part)).contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors makes it private
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot write {path} ({unwritten(error)}); choose a folder you may write to") from None
