"""A module in a folder: `config.json` (its class and sizes) and safetensors (its weights), and nothing that could run.

Weights over 15 MiB are split into shards with an index, in the layout that the Hugging Face hub uses. Pickles are
refused: unpickling a file runs whatever code its author put into it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from yozora.errors import ModelError

CONFIG, STEM = "config.json", "model"
WEIGHTS, INDEX = f"{STEM}.safetensors", f"{STEM}.safetensors.index.json"
SHARD_BYTES = 15 * 2**20
PIECE = 2**22  # bytes that are read at a time
SMALL = 256  # a number up to this is never taken for one that the weights should show
SCALE = ".scale_of_rows"  # ends the name of the tensor that an int8 matrix is multiplied by
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
ALIGNMENT = 64  # bytes: where the tensors that torch makes begin

Module = TypeVar("Module", bound=nn.Module)


def save_module(module: nn.Module, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a module whose `config` is a dataclass; its floating-point parameters as `dtype`, if given.

    torch.int8 stores matrices and kernels as whole numbers with a scale for each row (output channel), at a quarter of
    float32's size and an error of at most 1/254 of the row's largest weight, and everything else as bfloat16. They are
    floats again once loaded.
    What is no tensor is written by the module's own `save_assets(folder)`, if it has one. Files are made in a temporary
    folder first and then moved to their place, so an interrupted save leaves no half-written one.
    Raises ModelError where the folder cannot be written.
    """
    folder = Path(folder)
    config = {"class": type(module).__name__, **dataclasses.asdict(typing.cast(Any, module.config))}
    shards = split_shards(stored_tensors(module, dtype))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            new = Path(temporary)
            for name, tensors in shards.items():
                save_file(tensors, new / name, metadata={"format": "pt"})
                (new / name).chmod(0o644)  # safetensors makes it private; weights are installed for all
            if len(shards) > 1:
                where = {key: name for name, tensors in shards.items() for key in tensors}
                size = sum(tensor.nbytes for tensors in shards.values() for tensor in tensors.values())
                write_json(new / INDEX, {"metadata": {"total_size": size}, "weight_map": where})
            if hasattr(module, "save_assets"):
                typing.cast(Any, module).save_assets(new)
            write_json(new / CONFIG, config)
            names = {path.name for path in new.iterdir()}
            for name in sorted(names, key=lambda name: name == INDEX):  # the index last: it may only name what is there
                os.replace(new / name, folder / name)
        for stale in {*folder.glob("model*.safetensors"), folder / INDEX} - {folder / name for name in names}:
            stale.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write {folder} ({unwritten(error)}); choose a folder you may write to, with room for it"
        ) from None


def load_module(
    cls: type[Module], folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = torch.float32
) -> Module:
    """The module that `save_module` wrote, for evaluation, its floating-point parameters as `dtype` (None: as stored).

    Buffers (running statistics) are always float32. Raises ModelError, in one line, for anything missing, broken,
    mismatched or unsafe.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # unlike Path.is_dir, False for names that no file system takes
        raise ModelError(f"there is no model folder {folder}; give one with {CONFIG} and {WEIGHTS}")
    config = read_config(cls, folder)
    shards = find_weights(folder)
    check_sizes(config, shards, folder / CONFIG)
    assets = typing.cast(Any, cls).load_assets(folder) if hasattr(cls, "load_assets") else {}
    try:
        with torch.device("meta"):  # sizes only: nothing is allocated before everything is known to fit
            module = cls(config, **assets)
    except (ValueError, RuntimeError) as error:  # torch counts no further than 2**63 bytes
        raise ModelError(f"{folder / CONFIG} describes no {cls.__name__}: {first_line(error)}") from None
    expected = module.state_dict()
    check_fit(expected, shards, folder)
    parameters = {name for name, _ in module.named_parameters()}
    stored = {
        name: tensor
        for path, header in shards.items()
        for name, tensor in read_tensors(path, list(header), str(device)).items()
    }
    state = {}
    for name in expected:
        tensor = dequantise(stored, name, folder)
        wanted = dtype if name in parameters else torch.float32
        state[name] = tensor.to(wanted) if wanted and tensor.is_floating_point() else tensor
    module.load_state_dict(state, assign=True)
    return module.eval()


# ---- configuration ---------------------------------------------------------------------------------------------------


def read_config(cls: type[nn.Module], folder: Path) -> Any:
    """The configuration dataclass of `cls` from config.json. Raises ModelError."""
    path = folder / CONFIG
    fields = read_json(path)
    config_class = typing.get_type_hints(cls.__init__)["config"]
    name = fields.pop("class", None)
    if name != cls.__name__:
        raise ModelError(
            f"{path} describes {name or 'a model of another program'}, not {cls.__name__}; check the folder"
        )
    known = {field.name for field in dataclasses.fields(config_class)}
    needed = {field.name for field in dataclasses.fields(config_class) if not field.metadata.get("added")}
    for problem, names in (("does not know", fields.keys() - known), ("needs", needed - fields.keys())):
        if names:
            raise ModelError(
                f"{path}: this version of {cls.__name__} {problem} {', '.join(sorted(names))}; update yozora"
            )
    try:
        return TypeAdapter(config_class).validate_python(fields)
    except ValidationError as error:
        raise ModelError(f"{path}: {describe_invalid(error)}; restore the file it was saved with") from None
    except OverflowError as error:
        raise ModelError(f"{path}: {first_line(error)}; restore the file it was saved with") from None


def describe_invalid(error: ValidationError) -> str:
    """The first problem that pydantic found, in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")[:200]
    return f"{where[:100]}: {what}" if where else what


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        refuse_pickles(path.parent)
        raise ModelError(f"{path} is missing; copy the whole model folder") from None
    except OSError as error:
        raise ModelError(f"cannot read {path} ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}); copy it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object; copy it again")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON with a final newline: whole, or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def weights_digest(place: Path) -> str:
    """SHA-256 of a module's weights, hexadecimal: of a folder's safetensors, or of one file."""
    digest = hashlib.sha256()
    for path in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
        with path.open("rb") as file:
            while piece := file.read(PIECE):  # some are larger than the memory
                digest.update(piece)
    return digest.hexdigest()


# ---- weights ---------------------------------------------------------------------------------------------------------


def stored_tensors(module: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The module's tensors on the CPU, each with memory of its own; parameters as `dtype`, buffers as they are."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    stored = {}
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().to("cpu", copy=True).contiguous()
        if dtype is None or name not in parameters or not tensor.is_floating_point():
            stored[name] = tensor
        elif dtype == torch.int8 and tensor.ndim > 1:
            stored[name], stored[name + SCALE] = quantise(tensor)
        else:
            stored[name] = tensor.to(torch.bfloat16 if dtype == torch.int8 else dtype)
    return stored


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [rows, columns], or a convolution's kernels [rows, ...], as int8 and a float32 scale [rows, 1, ...]:
    their product is the same again, nearly."""
    scale = matrix.float().abs().amax(tuple(range(1, matrix.ndim)), keepdim=True).clamp_min(1e-12) / 127
    return (matrix.float() / scale).round().to(torch.int8), scale


def dequantise(stored: Mapping[str, Tensor], name: str, folder: Path) -> Tensor:
    """The named tensor, as floats again if it was stored as int8. Raises ModelError where its scale does not fit."""
    tensor, scale = stored[name], stored.get(name + SCALE)
    if tensor.dtype != torch.int8:
        return tensor
    if scale is None or scale.shape != (tensor.shape[0], *[1] * (tensor.ndim - 1)):
        raise ModelError(f"the weights in {folder} lack a scale for each row of {name}; copy the folder again")
    return tensor.float() * scale


def split_shards(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """File name → tensors, each file at most SHARD_BYTES (but a larger tensor is a file of its own)."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > SHARD_BYTES:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{n:05d}-of-{len(groups):05d}.safetensors": group for n, group in enumerate(groups, start=1)}


def find_weights(folder: Path, stem: str = STEM) -> dict[Path, dict[str, list[int]]]:
    """Weights file → the names and shapes in it; `stem` begins the files' names. Raises ModelError."""
    weights, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.exists():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
            raise ModelError(f"{index} has no weight_map of names; copy it again")
        names = sorted(set(where.values()))
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ModelError(f"{index} names {name[:80]!r}, which is no safetensors file beside it; refused")
        shards = {folder / name: read_header(folder / name) for name in names}
        held = Counter(name for header in shards.values() for name in header)
        if twice := next((name for name, count in held.items() if count > 1), None):
            raise ModelError(
                f"{folder}: {twice[:120]} is in two of its files; they are of different models, copy it again"
            )
        return shards
    if not weights.exists():
        refuse_pickles(folder)
    return {weights: read_header(weights)}


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError if the folder has a pickle where safetensors were looked for."""
    pickles = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise ModelError(f"{pickles[0]} is a pickle, which can run code when it is loaded; convert it to safetensors")


def refuse_pickle(path: Path) -> None:
    """Raise ModelError if the file is a pickle, whatever it is called. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise ModelError(f"{path} is a pickle, which can run code when it is loaded; convert it to safetensors")


def read_header(path: Path) -> dict[str, list[int]]:
    """Tensor names and shapes of a safetensors file. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"{path} is missing; copy the whole model folder")
    try:
        refuse_pickle(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is broken or truncated ({first_line(error)}); copy it again") from None


def read_tensors(path: Path, names: list[str], device: str) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, straight to the device, and not left in the mapped file: there they
    begin anywhere, and by where a matrix begins some processors' kernels round. Raises ModelError."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {name: aligned(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is broken or truncated ({first_line(error)}); copy it again") from None


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it where it does not begin as torch's own do."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def check_fit(expected: Mapping[str, Tensor], shards: Mapping[Path, Mapping[str, list[int]]], folder: Path) -> None:
    """Raise ModelError unless the files hold exactly the tensors that the configuration asks for."""
    found = {
        name: (path, shape)
        for path, header in shards.items()
        for name, shape in header.items()
        if not (name.endswith(SCALE) and name.removesuffix(SCALE) in expected)
    }
    for problem, names in (("lack", expected.keys() - found.keys()), ("have unknown", found.keys() - expected.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            what = f"the weights in {folder} {problem} {min(names)[:120]}{more}"
            raise ModelError(f"{what}; {CONFIG} and weights are of different models, copy both from one")
    for name, (path, shape) in found.items():
        if list(expected[name].shape) != shape:
            what = f"{path}: {name} is {shape}, {CONFIG} asks for {list(expected[name].shape)}"
            raise ModelError(f"{what}; they are of different models, copy both from one")


def check_sizes(config: Any, shards: Mapping[Path, Mapping[str, list[int]]], path: Path) -> None:
    """Raise ModelError for a number in the configuration that is beyond every size, and the number, of the tensors:
    even without memory, a network of a hundred thousand blocks takes minutes to build."""
    shapes = [shape for header in shards.values() for shape in header.values()]
    most = max(SMALL, len(shapes), *(side for shape in shapes for side in shape))
    for name, value in dataclasses.asdict(config).items():
        for number in numbers_in(value):
            if number > most:
                raise ModelError(
                    f"{path}: {name} is {str(number)[:40]}, and nothing in the weights is larger than {most}; "
                    "they are of different models, copy both from one"
                )


def numbers_in(value: Any) -> list[int]:
    """The whole numbers in a value of a configuration, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [number for part in value for number in numbers_in(part)]
    return [value] if isinstance(value, int) else []


def unwritten(error: OSError | SafetensorError) -> str:
    """Why a file could not be written, without the words that safetensors puts around it."""
    reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
    return reason.rpartition("I/O error: ")[2].partition(" (os error")[0]


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 160 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
