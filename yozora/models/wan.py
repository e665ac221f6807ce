"""Wan's networks by their names: key maps, presets, reading and writing (Wan team, "Wan: Open and Advanced Large-Scale
Video Generative Models", 2025).

The transformers of Wan 2.1 text-to-video (1.3B, 14B) and Wan 2.2 TI2V-5B have the form of `yozora.models.transformer`;
only the names of their tensors differ, and queries, keys and values lie in three matrices. Their autoencoders are those
of `yozora.models.wan_autoencoder`. There are two layouts of names, diffusers' and that of the original release. Norms,
modulation and the time embedding stay float32, as they are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from yozora.errors import ModelError, printable
from yozora.models.folder import CONFIG, describe_invalid, first_line, read_json
from yozora.models.mapped import (
    PICKLED,
    KeyMap,
    Layout,
    Row,
    Stored,
    check_keys,
    key_map,
    load_mapped,
    numbered,
    read_mapped,
    save_mapped,
)
from yozora.models.offload import Away, Shelf
from yozora.models.running import Blocks, Running
from yozora.models.transformer import Block, Transformer, TransformerConfig
from yozora.models.wan_autoencoder import (
    WAN21_AUTOENCODER,
    WAN22_AUTOENCODER,
    DownStage,
    UpStage,
    WanAutoencoder,
    WanAutoencoderConfig,
)
from yozora.models.wan_layers import Down, ResidualBlock, Up, lay

ROWS: tuple[Row, ...] = (  # ours, diffusers', the original's, and which tensors each has
    ("patch", "patch_embedding", "patch_embedding", "weight bias"),
    ("time.up", "condition_embedder.time_embedder.linear_1", "time_embedding.0", "weight bias"),
    ("time.down", "condition_embedder.time_embedder.linear_2", "time_embedding.2", "weight bias"),
    ("time.modulation", "condition_embedder.time_proj", "time_projection.1", "weight bias"),
    ("text.up", "condition_embedder.text_embedder.linear_1", "text_embedding.0", "weight bias"),
    ("text.down", "condition_embedder.text_embedder.linear_2", "text_embedding.2", "weight bias"),
    ("head.out", "proj_out", "head.head", "weight bias"),
    ("head.table", "scale_shift_table", "head.modulation", ""),
)
BLOCK_ROWS: tuple[Row, ...] = (  # the same within each block; where several make one, they are stacked
    ("attention.qkv", "attn1.to_q attn1.to_k attn1.to_v", "self_attn.q self_attn.k self_attn.v", "weight bias"),
    ("attention.norm_q", "attn1.norm_q", "self_attn.norm_q", "weight"),
    ("attention.norm_k", "attn1.norm_k", "self_attn.norm_k", "weight"),
    ("attention.out", "attn1.to_out.0", "self_attn.o", "weight bias"),
    ("norm_cross", "norm2", "norm3", "weight bias"),
    ("cross.q", "attn2.to_q", "cross_attn.q", "weight bias"),
    ("cross.kv", "attn2.to_k attn2.to_v", "cross_attn.k cross_attn.v", "weight bias"),
    ("cross.norm_q", "attn2.norm_q", "cross_attn.norm_q", "weight"),
    ("cross.norm_k", "attn2.norm_k", "cross_attn.norm_k", "weight"),
    ("cross.out", "attn2.to_out.0", "cross_attn.o", "weight bias"),
    ("ffn.up", "ffn.net.0.proj", "ffn.0", "weight bias"),
    ("ffn.down", "ffn.net.2", "ffn.2", "weight bias"),
    ("table", "scale_shift_table", "modulation", ""),
)
EXACT = ("time.", "norm", "table")  # in our names: what stays float32

CONFIG_KEYS: dict[Layout, dict[str, str]] = {  # ours → theirs, in config.json
    "diffusers": {"channels": "in_channels", "out_channels": "out_channels", "depth": "num_layers", "ffn": "ffn_dim",
                  "heads": "num_attention_heads", "freq_dim": "freq_dim", "text_width": "text_dim", "eps": "eps"},
    "original": {"channels": "in_dim", "out_channels": "out_dim", "depth": "num_layers", "ffn": "ffn_dim",
                 "heads": "num_heads", "freq_dim": "freq_dim", "eps": "eps", "width": "dim"},
}  # fmt: skip
CLASSES: dict[str, Layout] = {"WanTransformer3DModel": "diffusers", "WanModel": "original"}
COARSE = 2  # levels of the autoencoders that stay float32
TEXT_WIDTH = 4096  # of UMT5-XXL, which the original layout does not say

PRESETS = {
    "wan2.1-1.3b": TransformerConfig(channels=16, width=1536, depth=30, heads=12, ffn=8960 / 1536, text_width=4096),
    "wan2.1-14b": TransformerConfig(channels=16, width=5120, depth=40, heads=40, ffn=13824 / 5120, text_width=4096),
    "wan2.2-5b": TransformerConfig(channels=48, width=3072, depth=30, heads=24, ffn=14336 / 3072, text_width=4096),
}


RESIDUAL_ROWS: tuple[Row, ...] = (  # of a residual block of the autoencoders
    ("norm1", "norm1.gamma", "residual.0.gamma", ""),
    ("conv1", "conv1", "residual.2", "weight bias"),
    ("norm2", "norm2.gamma", "residual.3.gamma", ""),
    ("conv2", "conv2", "residual.6", "weight bias"),
)
SHORTCUT_ROW: Row = ("shortcut", "conv_shortcut", "shortcut", "weight bias")
SPACE_ROW: Row = ("space", "resample.1", "resample.1", "weight bias")
TIME_ROW: Row = ("time", "time_conv", "time_conv", "weight bias")
ATTENTION_ROWS: tuple[Row, ...] = (
    ("norm", "norm.gamma", "norm.gamma", ""),
    ("qkv", "to_qkv", "to_qkv", "weight bias"),
    ("out", "proj", "proj", "weight bias"),
)
ENDS_ROWS: tuple[Row, ...] = (  # of both halves, the encoder and the decoder
    ("stem", "conv_in", "conv1", "weight bias"),
    ("norm", "norm_out.gamma", "head.0.gamma", ""),
    ("head", "conv_out", "head.2", "weight bias"),
)
MIDDLE_ROWS = (
    *(numbered(row, "middle.first.", "mid_block.resnets.0.", "middle.0.") for row in RESIDUAL_ROWS),
    *(numbered(row, "middle.attention.", "mid_block.attentions.0.", "middle.1.") for row in ATTENTION_ROWS),
    *(numbered(row, "middle.second.", "mid_block.resnets.1.", "middle.2.") for row in RESIDUAL_ROWS),
)
LATENT_ROWS: tuple[Row, ...] = (
    ("encoder.latent", "quant_conv", "conv1", "weight bias"),
    ("decoder.latent", "post_quant_conv", "conv2", "weight bias"),
)
PLACES = {  # where a half's blocks and what samples stand: stage i, part j of it, and n, counted through all stages
    ("encoder", False): ("down_blocks.{n}.", "down_blocks.{n}.", "downsamples.{n}.", "downsamples.{n}."),
    ("encoder", True): ("down_blocks.{i}.resnets.{j}.", "down_blocks.{i}.downsampler.",
                        "downsamples.{i}.downsamples.{j}.", "downsamples.{i}.downsamples.{j}."),
    ("decoder", False): ("up_blocks.{i}.resnets.{j}.", "up_blocks.{i}.upsamplers.0.",
                         "upsamples.{n}.", "upsamples.{n}."),
    ("decoder", True): ("up_blocks.{i}.resnets.{j}.", "up_blocks.{i}.upsampler.",
                        "upsamples.{i}.upsamples.{j}.", "upsamples.{i}.upsamples.{j}."),
}  # fmt: skip
AUTOENCODER_CONFIG = {  # ours → diffusers', in config.json
    "channels": "z_dim", "width": "base_dim", "multiples": "dim_mult", "depth": "num_res_blocks",
    "halves_time": "temperal_downsample", "residual": "is_residual", "mean": "latents_mean", "std": "latents_std",
}  # fmt: skip


def transformer_keys(depth: int, layout: Layout = "diffusers", cross_norm: bool = True) -> KeyMap:
    """The key map of a transformer of so many blocks."""
    rows = list(ROWS)
    for n in range(depth):
        rows += [numbered(row, f"blocks.{n}.") for row in BLOCK_ROWS if cross_norm or row[0] != "norm_cross"]
    return key_map(rows, layout)


def load_wan_transformer(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    changes: Mapping[str, Tensor] | None = None,
    running: Running | None = None,
) -> Transformer:
    """The transformer of a folder with Wan's config.json and safetensors, in either layout, for evaluation. `changes`
    are added to its weights, by our names (see `yozora.models.wan_lora`). `running` says how its blocks are run (see
    `yozora.models.running`); None leaves them as they are. They are read and made ready one after the other, so that
    never more than one lies whole where it is not to stay. Raises ModelError, in one line."""
    config, layout = read_wan_config(Path(folder))
    keys = transformer_keys(config.depth, layout, config.cross_norm)
    with torch.device("meta"):
        module = Transformer(config)
    if running is None:
        with Stored(Path(folder)) as stored:
            return load_mapped(module, keys, stored, device, dtype, exact=stays_exact, changes=changes)
    blocks = Blocks(running, torch.device(device), dtype)
    with Stored(Path(folder)) as stored:
        expected = module.state_dict()
        check_keys({name: expected[name].shape for name in keys}, keys, stored)
        outside = {name: theirs for name, theirs in keys.items() if not name.startswith("blocks.")}
        read_mapped(module, outside, stored, device, dtype, exact=stays_exact, changes=changes, copy=True)
        module.eval().requires_grad_(False)
        for n, block in enumerate(module.blocks):
            assert isinstance(block, Block)
            inside = {name: theirs for name, theirs in keys.items() if name.startswith(f"blocks.{n}.")}
            read_mapped(module, inside, stored, blocks.home, dtype, exact=stays_exact, changes=changes, copy=True)
            module.blocks[n] = blocks.ready(block)
    return module


def save_wan_transformer(transformer: Transformer, path: Path, layout: Layout = "diffusers") -> None:
    """Writes a transformer's weights by Wan's names, for other programs, as one safetensors file. Raises ModelError."""
    config = transformer.config
    if config.absolute or config.spans or config.spacing != 1:
        raise ModelError("this transformer has what Wan's has not (absolute positions, spans or spacing)")

    def shape_there(name: str, part: Tensor) -> list[int]:
        if name == "patch.weight":
            return [config.width, config.channels, *config.patch]
        return [1, *part.shape] if name.endswith("table") else list(part.shape)

    save_mapped(transformer, transformer_keys(config.depth, layout, config.cross_norm), path, shape_there)


def stays_exact(name: str) -> bool:
    """Whether a tensor of the transformer stays float32: what works on norms, modulation and levels."""
    return any(part in name for part in EXACT)


def read_wan_config(folder: Path) -> tuple[TransformerConfig, Layout]:
    """What config.json says of a transformer, and in which layout it is. Raises ModelError."""
    path = folder / CONFIG
    fields = read_json(path)
    name = fields.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise ModelError(f"{path} describes {str(name or 'no known model')[:60]}, not a transformer of Wan")
    layout = CLASSES[name]
    _refuse_others(path, fields)
    try:
        given: dict[str, Any] = {ours: fields[theirs] for ours, theirs in CONFIG_KEYS[layout].items()}
        if layout == "diffusers":
            sides = given["heads"], fields["attention_head_dim"]
            if not all(isinstance(side, int) for side in sides):
                raise TypeError("the number of heads and their width must be whole numbers")
            given["width"] = sides[0] * sides[1]
            given |= {"patch": tuple(fields["patch_size"]), "cross_norm": bool(fields["cross_attn_norm"])}
        else:
            given |= {"text_width": fields.get("text_dim", TEXT_WIDTH), "cross_norm": True}
            given["patch"] = tuple(fields.get("patch_size", (1, 2, 2)))
        if given["out_channels"] in (None, given["channels"]):
            given["out_channels"] = None
        given["ffn"] = given["ffn"] / given["width"]
        return TypeAdapter(TransformerConfig).validate_python(given), layout
    except KeyError as error:
        raise ModelError(f"{path} does not say {error}; copy it again") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{path} describes no transformer of Wan: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    """What is wrong with a configuration, in one line."""
    return describe_invalid(error) if isinstance(error, ValidationError) else first_line(error)


def _refuse_others(path: Path, fields: dict[str, Any]) -> None:
    """Raises ModelError for relatives of Wan that do what ours does not: they also look at a picture's features."""
    kind = fields.get("model_type")
    if fields.get("image_dim") or fields.get("added_kv_proj_dim") or kind not in (None, "t2v", "ti2v"):
        what = printable(kind or "image_dim")[:40]
        raise ModelError(
            f"{path} is of a Wan that attends to a picture ({what}), which Yozora does not run: "
            "Wan 2.2 TI2V-5B starts from pictures, too"
        )
    if fields.get("qk_norm", "rms_norm_across_heads") not in ("rms_norm_across_heads", True):
        raise ModelError(f"{path}: its qk_norm is {printable(fields['qk_norm'])[:40]}; Wan's are normed across heads")


# ---- autoencoders ----------------------------------------------------------------------------------------------------


def autoencoder_keys(config: WanAutoencoderConfig, layout: Layout = "diffusers") -> KeyMap:
    """The key map of an autoencoder."""
    rows = list(LATENT_ROWS)
    with torch.device("meta"):
        made = WanAutoencoder(config)
    for half, stages in (("encoder", made.encoder.stages), ("decoder", made.decoder.stages)):
        inside = [*ENDS_ROWS, *MIDDLE_ROWS]
        places, n = PLACES[half, config.residual], 0
        for i, stage in enumerate(stages):
            assert isinstance(stage, (DownStage, UpStage))
            for j, block in enumerate([*stage.blocks, stage.sample]):
                theirs = [place.format(i=i, j=j, n=n) for place in places]
                n += block is not None
                if isinstance(block, ResidualBlock):
                    parts = RESIDUAL_ROWS if block.shortcut is None else (*RESIDUAL_ROWS, SHORTCUT_ROW)
                    inside += [numbered(row, f"stages.{i}.blocks.{j}.", theirs[0], theirs[2]) for row in parts]
                elif isinstance(block, (Down, Up)):
                    parts = (SPACE_ROW,) if block.time is None else (SPACE_ROW, TIME_ROW)
                    inside += [numbered(row, f"stages.{i}.sample.", theirs[1], theirs[3]) for row in parts]
        rows += [numbered(row, f"{half}.") for row in inside]
    return key_map(rows, layout)


def load_wan_autoencoder(
    place: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offload: str | None = None,
) -> WanAutoencoder:
    """The autoencoder of a folder as diffusers writes it, or of an original .pth file, for evaluation, channels last.
    `offload` is where each half waits until it is at work (see `yozora.models.offload`). Raises ModelError, in one
    line."""
    place = Path(place)
    original = place.suffix == PICKLED
    with Stored(place) as stored:
        config = original_autoencoder(stored) if original else read_wan_autoencoder(place)
        with torch.device("meta"):
            module = WanAutoencoder(config)
        keys = autoencoder_keys(config, "original" if original else "diffusers")
        load_mapped(module, keys, stored, "cpu" if offload else device, dtype,
                    exact=lambda name: is_coarse(name, config))  # fmt: skip
    lay(module, torch.device(device))
    if offload:
        shelf = Shelf(torch.device(device), offload, ahead=False)
        for half in ("encoder", "decoder"):
            setattr(module, half, Away(module.get_submodule(half), shelf))
    return module


def is_coarse(name: str, config: WanAutoencoderConfig) -> bool:
    """Whether a tensor of the autoencoder stays float32: norms, both ends of each half, and the levels where cells are
    so few that it costs next to no time, though what is rounded there shows everywhere."""
    half, part, *rest = name.split(".")
    if part != "stages":
        return True
    level, last = int(rest[0]), len(config.multiples) - 1
    return rest[-1].startswith("norm") or (level < COARSE if half == "decoder" else level > last - COARSE)


def read_wan_autoencoder(folder: Path) -> WanAutoencoderConfig:
    """What config.json says of an autoencoder, as diffusers writes it. Raises ModelError."""
    path = folder / CONFIG
    fields = read_json(path)
    if fields.get("_class_name") != "AutoencoderKLWan":
        raise ModelError(f"{path} describes {str(fields.get('_class_name'))[:60]}, not an autoencoder of Wan")
    fields = {"is_residual": False, "patch_size": None, "decoder_base_dim": None} | fields
    try:
        given: dict[str, Any] = {ours: fields[theirs] for ours, theirs in AUTOENCODER_CONFIG.items()}
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        given["decoder_width"] = fields["decoder_base_dim"] or fields["base_dim"]
        given["patch"] = fields["patch_size"] or 1
        return TypeAdapter(WanAutoencoderConfig).validate_python(given)
    except KeyError as error:
        raise ModelError(f"{path} does not say {error}; copy it again") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{path} describes no autoencoder of Wan: {_problem(error)}") from None


def original_autoencoder(stored: Stored) -> WanAutoencoderConfig:
    """Which of the released autoencoders a .pth file of the original layout is. Raises ModelError."""
    for config in (WAN21_AUTOENCODER, WAN22_AUTOENCODER):
        if stored.shapes.get("conv2.weight", [])[:1] == [config.channels]:
            return config
    raise ModelError(f"{stored.place} is no autoencoder of Wan 2.1 or 2.2")
