"""Wan's transformer loaded into ours: diffusers' numbers, both layouts of names, whole key lists, bad files."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from wan_models import tiny_transformer

from yozora.errors import ModelError
from yozora.models.folder import load_module, save_module
from yozora.models.running import AS_IT_IS
from yozora.models.transformer import Transformer
from yozora.models.wan import (
    PRESETS,
    load_wan_transformer,
    read_wan_config,
    save_wan_transformer,
    stays_exact,
    transformer_keys,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"


def original_names(depth: int) -> dict[str, str]:
    """diffusers' name → the original release's, by the converter that diffusers has."""
    library: Any = importlib.import_module("diffusers.loaders.single_file_utils")
    names = [name for theirs in transformer_keys(depth, "original").values() for name in theirs]
    numbered = {name: torch.tensor([n]) for n, name in enumerate(names)}
    converted = library.convert_wan_transformer_to_diffusers(dict(numbered))
    return {name: names[int(number)] for name, number in converted.items()}


def write_original(model: Any, folder: Path) -> None:
    """The model in the original layout, its weights in two shards with an index."""
    folder.mkdir(parents=True)
    config = model.config
    fields = {
        "_class_name": "WanModel",
        "model_type": "t2v",
        "dim": config.num_attention_heads * config.attention_head_dim,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_dim": config.in_channels,
        "out_dim": config.out_channels,
        "num_heads": config.num_attention_heads,
        "num_layers": config.num_layers,
        "eps": config.eps,
        "text_len": 512,
        "text_dim": config.text_dim,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    names = original_names(config.num_layers)
    tensors = {names[name]: tensor.clone() for name, tensor in model.state_dict().items()}
    where = {name: f"diffusion_pytorch_model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for shard in set(where.values()):
        save_file({name: tensors[name] for name in tensors if where[name] == shard}, folder / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


SHAPES = [(2, 128, 256, 2), (3, 16, 280, 3), (2, 12, 96, 1)]


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize(("heads", "head_width", "ffn", "depth"), SHAPES)
def test_same_numbers(heads: int, head_width: int, ffn: int, depth: int, layout: str, tmp_path: Path) -> None:
    theirs = tiny_transformer(heads, head_width, ffn, depth)
    folder = tmp_path / layout
    if layout == "diffusers":
        theirs.save_pretrained(folder)
    else:
        write_original(theirs, folder)
    ours = load_wan_transformer(folder)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 3, 6, 8, generator=generator)
    text = torch.randn(2, 7, 24, generator=generator)
    for levels in (torch.tensor([[0.999], [0.25]]), torch.rand(2, 3, 3, 4, generator=generator)):
        timestep = 1000 * (levels[:, 0] if levels.ndim == 2 else levels.flatten(1))  # a level a token: Wan 2.2 TI2V
        with torch.no_grad():
            expected = theirs(latents, timestep, text, return_dict=False)[0]
            got = ours(latents, levels, text)
        assert expected.abs().mean() > 0.05
        assert (got - expected).abs().max() <= 1e-4


def test_a_clip_with_its_first_frame_held(tmp_path: Path) -> None:
    """Wan 2.2 TI2V: diffusers gives tokens of the held frame level 0, every other the sampling level."""
    theirs = tiny_transformer()
    theirs.save_pretrained(tmp_path)
    ours = load_wan_transformer(tmp_path)
    latents, text = torch.randn(1, 4, 3, 4, 6), torch.randn(1, 5, 24)
    mask = torch.ones(3, 4, 6)
    mask[0] = 0
    expanded = (mask[:, ::2, ::2] * 700).flatten()[None]
    with torch.no_grad():
        expected = theirs(latents, expanded, text, return_dict=False)[0]
        got = ours(latents, torch.tensor([[0.0, 0.7, 0.7]]), text)
    assert (got - expected).abs().max() <= 1e-4


SIZES = {  # heads, feed-forward, blocks, channels
    "wan2.1-1.3b": (12, 8960, 30, 16, 825),
    "wan2.1-14b": (40, 13824, 40, 16, 1095),
    "wan2.2-5b": (24, 14336, 30, 48, 825),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_of_the_real_checkpoints_has_its_place(name: str) -> None:
    library: Any = importlib.import_module("diffusers.models.transformers.transformer_wan")
    heads, ffn, depth, channels, count = SIZES[name]
    with torch.device("meta"):
        theirs = library.WanTransformer3DModel(
            num_attention_heads=heads, ffn_dim=ffn, num_layers=depth, in_channels=channels, out_channels=channels
        ).state_dict()
        ours = Transformer(PRESETS[name]).state_dict()
    assert len(theirs) == count
    for layout in ("diffusers", "original"):
        keys = transformer_keys(depth, layout)
        assert keys.keys() == ours.keys()
        named = [each for names in keys.values() for each in names]
        translated = named if layout == "diffusers" else list(original_names(depth).keys())
        assert len(named) == len(set(named)) == count
        assert set(translated) == set(theirs)
    for mine, names in transformer_keys(depth).items():
        assert ours[mine].numel() == sum(theirs[each].numel() for each in names)
        assert all(theirs[each].numel() * len(names) == ours[mine].numel() for each in names)


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_saving_again_gives_the_same_bytes(layout: Any, tmp_path: Path) -> None:
    theirs = tiny_transformer()
    theirs.save_pretrained(tmp_path / "given")
    ours = load_wan_transformer(tmp_path / "given")
    again = tmp_path / "again"
    again.mkdir()
    save_wan_transformer(ours, again / WEIGHTS, layout)
    if layout == "diffusers":
        assert (again / WEIGHTS).read_bytes() == (tmp_path / "given" / WEIGHTS).read_bytes()
        (again / "config.json").write_bytes((tmp_path / "given" / "config.json").read_bytes())
    else:
        write_original(theirs, tmp_path / "other")
        (again / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    first = (again / WEIGHTS).read_bytes()
    save_wan_transformer(load_wan_transformer(again), again / WEIGHTS, layout)
    assert (again / WEIGHTS).read_bytes() == first
    save_module(ours, tmp_path / "own")
    own = (tmp_path / "own" / "model.safetensors").read_bytes()
    save_module(load_module(Transformer, tmp_path / "own"), tmp_path / "own")
    assert (tmp_path / "own" / "model.safetensors").read_bytes() == own


def test_what_needs_it_stays_float32(tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path)
    ours = load_wan_transformer(tmp_path, dtype=torch.bfloat16)
    for name, parameter in ours.named_parameters():
        assert parameter.dtype == (torch.float32 if stays_exact(name) else torch.bfloat16), name
    exact = load_wan_transformer(tmp_path)
    latents, levels, text = torch.randn(1, 4, 3, 4, 4), torch.rand(1, 3), torch.randn(1, 5, 24)
    with torch.no_grad():
        expected, got = exact(latents, levels, text), ours(latents, levels, text)
    assert (got - expected).norm() < 0.03 * expected.norm()


def test_what_is_made_ready_to_run_cannot_be_written(tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path)
    running = load_wan_transformer(tmp_path, running=AS_IT_IS)
    with pytest.raises(ModelError, match="load them as they are"):
        save_wan_transformer(running, tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()


def damage(folder: Path, what: str) -> None:
    """Makes a good folder a bad one."""
    config, weights = folder / "config.json", folder / WEIGHTS
    fields, tensors = json.loads(config.read_text()), load_file(weights)
    if what == "other architecture":
        fields["_class_name"] = "HunyuanVideoTransformer3DModel"
    elif what == "picture features":
        fields["image_dim"] = 1280
    elif what == "no depth":
        del fields["num_layers"]
    elif what == "odd heads":
        fields["num_attention_heads"] = "many"
    elif what == "heads in letters":
        fields |= {"num_attention_heads": 10**15, "attention_head_dim": "ab"}
    elif what == "half a block":
        fields["num_layers"] = 2.5
    elif what == "blocks without end":
        fields["num_layers"] = 10**400
    elif what == "no number":
        fields["eps"] = float("nan")
    elif what == "lacking":
        del tensors["blocks.1.ffn.net.2.bias"]
    elif what == "more":
        tensors["blocks.7.ffn.net.2.bias"] = torch.zeros(3)
    elif what == "other shape":
        tensors["blocks.1.ffn.net.2.bias"] = torch.zeros(3)
    elif what == "integers":
        tensors["proj_out.bias"] = tensors["proj_out.bias"].to(torch.int32)
    config.write_text(json.dumps(fields))
    save_file(tensors, weights)
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "no weights":
        weights.unlink()
    elif what == "missing shard":
        index = {"weight_map": dict.fromkeys(tensors, "diffusion_pytorch_model-00001-of-00002.safetensors")}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    elif what == "pickle":
        weights.unlink()
        (folder / "diffusion_pytorch_model.bin").write_bytes(b"PK")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("other architecture", "not a transformer of Wan"),
        ("picture features", "Wan 2.2 TI2V-5B"),
        ("no depth", "does not say 'num_layers'"),
        ("odd heads", "describes no transformer"),
        ("heads in letters", "the number of heads and their width must be whole"),
        ("half a block", "describes no transformer of Wan: depth"),
        ("blocks without end", "describes no transformer of Wan: depth"),
        ("no number", "describes no transformer of Wan: eps"),
        ("lacking", "lacks blocks.1.ffn.net.2.bias"),
        ("more", "has unknown blocks.7.ffn.net.2.bias"),
        ("other shape", "does not make blocks.1.ffn.down.bias"),
        ("integers", "is of type int32"),
        ("truncated", "broken or truncated"),
        ("no weights", "is missing"),
        ("missing shard", "00001-of-00002.safetensors is missing"),
        ("pickle", "is a pickle"),
    ],
)
def test_bad_folders_are_refused_in_one_line(what: str, said: str, tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path)
    damage(tmp_path, what)
    with pytest.raises(ModelError, match=said) as raised:
        load_wan_transformer(tmp_path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300 + len(str(tmp_path))


def test_configurations_are_read(tmp_path: Path) -> None:
    theirs = tiny_transformer(3, 16, 280, 3)
    theirs.save_pretrained(tmp_path / "a")
    write_original(theirs, tmp_path / "b")
    (first, _), (second, _) = read_wan_config(tmp_path / "a"), read_wan_config(tmp_path / "b")
    assert first == second
    assert (first.width, first.heads, first.depth, first.ffn_width) == (48, 3, 3, 280)
