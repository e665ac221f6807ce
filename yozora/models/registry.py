"""Models by name: the ones shipped in `yozora/models/weights`, or any folder of the same shape.

A model folder holds `transformer/`, `autoencoder/` and `text_encoder/` (see `folder`), perhaps `few_steps/` (see
`adapter`) and `retrieval/` (see `retrieval`), and `model.json`, its card.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import TypeAdapter, ValidationError

from yozora.errors import ModelError
from yozora.models.adapter import Adapter
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
from yozora.models.fetch import fetched, is_hub_name
from yozora.models.folder import (
    CONFIG,
    describe_invalid,
    load_module,
    read_config,
    read_json,
    save_module,
    weights_digest,
    write_json,
)
from yozora.models.lora import LoraUse, add_loras, known_by_content
from yozora.models.retrieval import RetrievalAdapter
from yozora.models.running import AS_IT_IS, Running
from yozora.models.text import TextEncoder
from yozora.models.tiled import Tiled
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan import load_wan_autoencoder, load_wan_transformer, read_wan_config
from yozora.models.wan_autoencoder import WanAutoencoder, WanAutoencoderConfig
from yozora.models.wan_folder import card_fields, find_parts, is_wan, read_configs
from yozora.models.wan_lora import WanChanges
from yozora.models.wan_text import WanTextEncoder, load_wan_text

SHIPPED = Path(__file__).parent / "weights"
CARD = "model.json"
RETRIEVAL = "retrieval"  # the folder, in a model's, of what shows it clips
MAX_SHIFT = 100.0
LARGE = 640_000  # pixels; between 832x480 and 1280x704


@dataclass(frozen=True)
class ModelInfo:
    """What to know of a model before running it. sizes (width, height) in pixels and frames_min..frames_max are what it
    was trained on, fps its rate; steps, guidance, shift (of the noise levels) and solver are how it is best sampled."""

    name: str
    description: str
    fps: float
    sizes: tuple[tuple[int, int], ...]
    frames_min: int
    frames_max: int
    steps: int
    guidance: float
    shift: float
    solver: str = "multistep"
    few_steps: int | None = None
    """Steps of its few-step weights (the folder's `few_steps`, see `yozora.models.adapter`), where it has such. They
    are used where the solver "flow-map" is asked for, or is the card's."""
    large_shift: float | None = None
    """The shift for pictures of over LARGE pixels, where it is another."""
    schedule: str = "even"
    """The grid of noise levels by its name in `yozora.diffusion.SCHEDULES`."""
    whole_levels: int | None = None
    """The number of levels that it was trained on, where these were numbered and are to be whole numbers."""
    one_level: bool = False
    """Whether all of a clip must have one noise level, so that nothing of it can be held."""
    deblock: bool = True
    """Whether a latent frame's details come in evenly over its frames once they are decoded."""
    projected: bool = False
    """Whether guidance is projected: see `yozora.diffusion.guidance`."""
    world: str | None = None
    """The mix of scenes of the simulated world that it has learned from: fine-tuning goes over them again."""

    def __post_init__(self) -> None:
        if not self.name or not self.sizes:
            raise ValueError("a model needs a name and at least one size")
        large = self.shift if self.large_shift is None else self.large_shift
        if not all(map(math.isfinite, (self.fps, self.shift, large, self.guidance))):
            raise ValueError("fps, shift and guidance must be finite numbers")
        if not 0 < large <= MAX_SHIFT or self.shift > MAX_SHIFT:
            raise ValueError(f"shift must be at most {MAX_SHIFT:g}")
        if self.whole_levels is not None and self.whole_levels < 1:
            raise ValueError("whole_levels must be at least 1")
        if self.fps <= 0 or self.shift <= 0 or min(self.steps, self.few_steps or 1) < 1 or self.guidance < 0:
            raise ValueError("fps, shift and steps must be positive, guidance at least 0")
        if min(min(size) for size in self.sizes) < 1 or not 1 <= self.frames_min <= self.frames_max:
            raise ValueError("sizes must be positive, and frames_min at least 1 and at most frames_max")

    def shift_for(self, size: tuple[int, int]) -> float:
        """The shift of the noise levels for pictures of a size."""
        return self.shift if self.large_shift is None or size[0] * size[1] <= LARGE else self.large_shift


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded model: its networks on one device, their parameters in one type, and its card. `adapter` makes the
    transformer for few steps, and `retrieval` shows it clips, where the model has them."""

    name: str
    transformer: Transformer
    autoencoder: Autoencoder | WanAutoencoder | Tiled
    text_encoder: TextEncoder | WanTextEncoder
    card: ModelInfo
    device: torch.device
    dtype: torch.dtype
    adapter: Adapter | None = None
    retrieval: RetrievalAdapter | None = None
    loras: tuple[LoraUse, ...] = ()
    reuse: float = 0.0
    """How much work of one step is used again in the next: the dial of `yozora.diffusion.reuse`."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The noise levels at which there is guidance."""
    running: Running = AS_IT_IS
    tile: int = 0
    """The side of the tiles in which it decodes, in pixels (0: whole)."""
    team: dist.ProcessGroup | None = None
    """The processes that share the tokens of a clip (see `yozora.models.shared`), where there are several."""

    @property
    def large(self) -> bool:
        """Whether it is one of the open models, whose weights can be stored in less."""
        return isinstance(self.text_encoder, WanTextEncoder)

    @cached_property
    def few_steps(self) -> Transformer | None:
        """The transformer for few steps without guidance, made when it is first asked for."""
        return None if self.adapter is None else self.adapter.onto(self.transformer)


def load_bundle(
    name_or_folder: str | Path = "mini",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    loras: Sequence[LoraUse] = (),
    running: Running = AS_IT_IS,
) -> Bundle:
    """A shipped model by its name, or a model folder: Yozora's own, or one of Wan (see `wan_folder`). dtype None:
    bfloat16 where the device is quick at it, or float32. `loras` are added to its transformer's weights. `running`
    says how the blocks of open weights are run; Yozora's own are small.

    Raises ModelError, in one line, for an unknown name and for a folder that is missing, broken, mismatched or unsafe.
    """
    folder = find_model(name_or_folder)
    device = torch.device(device)
    dtype = quick_dtype(device) if dtype is None else dtype
    if is_wan(folder):
        return load_wan_bundle(folder, device, dtype, tuple(loras), running)
    if running != AS_IT_IS:
        raise ModelError(
            f"{folder.name} is no open weights: leave out --weights, --offload and --compile, which serve them"
        )
    card = read_card(folder)
    transformer = load_module(Transformer, folder / "transformer", device, torch.float32 if loras else dtype)
    add_loras(transformer, loras)
    transformer.to(dtype)
    autoencoder = load_module(Autoencoder, folder / "autoencoder", device, dtype)
    text_encoder = load_module(TextEncoder, folder / "text_encoder", device, dtype)
    adapter = None if card.few_steps is None else load_module(Adapter, folder / "few_steps", device, dtype)
    shows = load_module(RetrievalAdapter, folder / RETRIEVAL, device, dtype) if (folder / RETRIEVAL).exists() else None
    used = tuple(map(known_by_content, loras))
    bundle = Bundle(card.name, transformer, autoencoder, text_encoder, card, device, dtype, adapter, shows, used)
    for added in (adapter, shows):
        if added is not None:
            added.check(transformer)
    _check_parts(folder, bundle)
    _check_card(folder, bundle)
    return bundle


def load_wan_bundle(
    folder: Path, device: torch.device, dtype: torch.dtype, loras: tuple[LoraUse, ...], running: Running
) -> Bundle:
    """A folder of Wan. Raises ModelError."""
    parts, (card, *_) = find_parts(folder), read_parts(folder)
    changes = WanChanges(loras, read_wan_config(parts.transformer)[0]) if loras else None
    bundle = Bundle(
        card.name,
        load_wan_transformer(parts.transformer, device, dtype, changes, running),
        load_wan_autoencoder(parts.autoencoder, device, dtype, running.offload),
        load_wan_text(parts.text_encoder, parts.tokenizer, device, dtype),
        card,
        device,
        dtype,
        loras=tuple(map(known_by_content, loras)),
        running=running,
    )
    _check_parts(folder, bundle)
    _check_card(folder, bundle)
    return bundle


def autoencoder_of(name_or_folder: str | Path = "mini") -> Path:
    """Where a model's autoencoder is: a folder, or Wan's file. Raises ModelError."""
    folder = find_model(name_or_folder)
    return find_parts(folder).autoencoder if is_wan(folder) else folder / "autoencoder"


def autoencoder_version(name_or_folder: str | Path = "mini") -> str:
    """SHA-256 of a model's autoencoder, hexadecimal: latents of two models mean the same pictures where it is the same.
    Raises ModelError."""
    return weights_digest(autoencoder_of(name_or_folder))


def read_parts(folder: Path) -> tuple[ModelInfo, AutoencoderConfig | WanAutoencoderConfig, TransformerConfig]:
    """What a model folder says of itself, without loading it: its card and the networks' sizes. Raises ModelError."""
    if not is_wan(folder):
        autoencoder = read_config(Autoencoder, folder / "autoencoder")
        return read_card(folder), autoencoder, read_config(Transformer, folder / "transformer")
    parts = find_parts(folder)
    autoencoder, transformer = read_configs(parts)
    if (folder / CARD).is_file():
        return read_card(folder), autoencoder, transformer
    fields = card_fields(folder, parts, transformer)
    try:
        return ModelInfo(**fields), autoencoder, transformer
    except ValueError as error:
        raise ModelError(f"{folder} cannot be used: {error}") from None


def load_autoencoder(
    place: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Autoencoder | WanAutoencoder:
    """An autoencoder alone: the folder of Yozora's own, or that of Wan's, or its file. Raises ModelError."""
    if place.is_file() or "_class_name" in (read_json(place / CONFIG) if (place / CONFIG).is_file() else {}):
        return load_wan_autoencoder(place, device, dtype)
    return load_module(Autoencoder, place, device, dtype)


def merge_loras(name_or_folder: str | Path, loras: Sequence[LoraUse], output: Path) -> None:
    """Writes a model folder with `loras` in its weights, called as the folder is. Raises ModelError."""
    folder = find_model(name_or_folder)
    if is_wan(folder):
        raise ModelError(f"{folder} is in the layout of open weights: use its LoRAs by --lora, which is as fast")
    if output.exists():
        raise ModelError(f"{output} is there already: choose another folder")
    card = dataclasses.replace(read_card(folder), name=output.name)
    transformer = load_module(Transformer, folder / "transformer")
    add_loras(transformer, loras)
    parts = ["autoencoder", "text_encoder", *(["few_steps"] if card.few_steps is not None else [])]
    parts += [RETRIEVAL] if (folder / RETRIEVAL).exists() else []
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".merging-", dir=output.parent) as temporary:
            made = Path(temporary) / "model"
            for part in parts:
                shutil.copytree(folder / part, made / part)
            save_module(transformer, made / "transformer", torch.bfloat16)
            write_json(made / CARD, dataclasses.asdict(card))
            os.replace(made, output)
    except OSError as error:
        raise ModelError(f"cannot write {output} ({error.strerror or error}); choose another folder") from None


def list_models() -> list[ModelInfo]:
    """The cards of the shipped models, by name; one that cannot be read is left out."""
    cards = []
    for path in sorted(SHIPPED.glob(f"*/{CARD}")):
        try:
            cards.append(read_card(path.parent))
        except ModelError:
            continue
    return cards


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a model: shipped, here, or fetched from the hub (ORGANISATION/NAME). A shipped name wins over a
    folder of that name here; write ./NAME for the folder. Raises ModelError."""
    shipped = {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{CARD}"))}
    if isinstance(name_or_folder, str) and name_or_folder in shipped:
        return shipped[name_or_folder]
    if os.path.isdir(name_or_folder):  # unlike Path.is_dir, False for names that no file system takes
        return Path(name_or_folder)
    names, asked = ", ".join(shipped) or "none", str(name_or_folder)[:120]
    if isinstance(name_or_folder, str) and is_hub_name(name_or_folder):
        if folder := fetched(name_or_folder):
            return folder
        raise ModelError(f"{asked} is neither a folder nor fetched: `yozora models fetch {asked}` gets it from the hub")
    raise ModelError(f"there is no model {asked!r}: give a folder with {CARD}, or a shipped name ({names})")


def read_card(folder: Path) -> ModelInfo:
    """The card of a model folder. Raises ModelError."""
    path = folder / CARD
    try:
        return TypeAdapter(ModelInfo).validate_python(read_json(path))
    except ValidationError as error:
        raise ModelError(f"{path}: {describe_invalid(error)}; correct it or copy it again") from None


def quick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it and on CPUs with instructions for it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    quick = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if quick else torch.float32


def _check_parts(folder: Path, bundle: Bundle) -> None:
    """Raises ModelError for parts that cannot feed one another."""
    wanted, given = bundle.transformer.config, (bundle.autoencoder.config.channels, bundle.text_encoder.config.width)
    if given != (wanted.channels, wanted.text_width):
        raise ModelError(
            f"the parts of {folder} do not fit: its transformer takes {wanted.channels} channels and text of width "
            f"{wanted.text_width}, the others give {given[0]} and {given[1]}; use parts trained together"
        )


def _check_card(folder: Path, bundle: Bundle) -> None:
    """Raises ModelError for a card with sizes or lengths that are not on the grid of the model's tokens."""
    card, config = bundle.card, bundle.autoencoder.config
    step = config.spatial * bundle.transformer.config.patch[1]
    for width, height in card.sizes:
        if width % step or height % step:
            raise ModelError(f"{folder / CARD}: size {width}x{height} is no multiple of {step}; correct it")
    for frames in (card.frames_min, card.frames_max):
        if (frames - 1) % config.temporal:
            raise ModelError(f"{folder / CARD}: {frames} frames is not 1 + {config.temporal}k; correct it")
