"""Folders of Wan as models: both layouts, what each can do, LoRAs of other programs, bad folders, the command line."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_wan_transformer import write_original
from wan_models import tiny_pipeline, tiny_transformer

import yozora
from yozora.cli import main
from yozora.create import Generator
from yozora.create.generator import read_native
from yozora.errors import CanvasError, ModelError
from yozora.models import wan, wan_text
from yozora.models.lora import LoraUse
from yozora.models.mapped import key_map
from yozora.models.registry import read_parts
from yozora.models.wan import autoencoder_keys, load_wan_transformer, transformer_keys
from yozora.models.wan_lora import WanChanges

SIZE = {"2.1": (32, 16), "2.2": (64, 32)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in diffusers' layout."""
    made = {}
    for version in ("2.1", "2.2"):
        made[version] = tmp_path_factory.mktemp("wan") / version
        tiny_pipeline(version).save_pretrained(made[version])
    return made


def load(folder: Path, **options: Any) -> Generator:
    return yozora.load(folder, device="cpu", dtype=torch.float32, **options)


def make(generator: Generator, version: str, way: Callable[..., Any] | None = None, *given: Any, **options: Any) -> Any:
    given = given or (() if "prompt" in options else ("a red ball",))
    return (way or generator.generate)(*given, size=SIZE[version], steps=3, seed=4, **options)


pytestmark = pytest.mark.filterwarnings("ignore::yozora.create.generator.YozoraWarning")


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_a_video_is_what_diffusers_makes(version: str, folders: dict[str, Path]) -> None:
    generator = load(folders[version])
    fps = generator.native.fps
    clip = make(generator, version, seconds=5 / fps, guidance=4.0, negative="ball")
    pipeline = tiny_pipeline(version)
    library: Any = importlib.import_module("diffusers")

    class Scheduler(library.UniPCMultistepScheduler):  # Wan's own grid of levels
        def set_timesteps(self, count: int, device: Any = None) -> None:
            super().set_timesteps(None, device, sigmas=np.linspace(0.999, 0, count + 1)[:-1])

    pipeline.scheduler = Scheduler.from_config(pipeline.scheduler.config)
    width, height = SIZE[version]
    cell = generator.grid.spatial
    noise = torch.randn(1, generator.bundle.autoencoder.config.channels, 2, height // cell, width // cell,
                        generator=torch.Generator().manual_seed(4))  # fmt: skip
    expected = pipeline(
        "a red ball", "ball", height=height, width=width, num_frames=5, num_inference_steps=3, guidance_scale=4.0,
        latents=noise, output_type="np",
    ).frames[0]  # fmt: skip
    assert clip.frames.shape == expected.shape
    assert np.abs(clip.frames - expected * 255).max() <= 1


def test_one_level_a_clip_can_invent_and_remix_but_hold_nothing(folders: dict[str, Path]) -> None:
    generator = load(folders["2.1"])
    clip = make(generator, "2.1", seconds=0.3)
    assert len(clip.frames) == 5
    picture = yozora.Clip(clip.frames[:1], clip.fps)
    remixed = make(generator, "2.1", generator.remix, clip, "a ball", strength="mild")
    assert remixed.frames.shape == clip.frames.shape
    for way, given in ((generator.animate, (picture, "a ball")), (generator.extend, (clip, "a ball"))):
        with pytest.raises(CanvasError, match=r"one noise level a clip .* mini or Wan 2.2 TI2V-5B"):
            make(generator, "2.1", way, *given)
    with pytest.raises(CanvasError, match="cannot close a loop"):
        make(generator, "2.1", generator.loop, prompt="a ball")
    with pytest.raises(CanvasError, match=r"more than 5.06 s"):
        make(generator, "2.1", seconds=7)


def test_levels_for_every_token_can_do_every_way(folders: dict[str, Path]) -> None:
    generator = load(folders["2.2"])
    clip = make(generator, "2.2", seconds=9 / 24)
    picture = yozora.Clip(clip.frames[:1], clip.fps)
    moved = make(generator, "2.2", generator.animate, picture, "a ball", seconds=5 / 24)
    assert np.array_equal(moved.frames[0], picture.frames[0])  # what is given comes back
    longer = make(generator, "2.2", generator.extend, clip, "a ball", seconds=4 / 24)
    assert len(longer.frames) == len(clip.frames) + 4
    assert np.array_equal(longer.frames[: len(clip.frames)], clip.frames)


def original_folder(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same tiny model in the original layout."""
    pipeline = tiny_pipeline(version)
    write_original(pipeline.transformer, folder)
    if version == "2.2":
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | {"model_type": "ti2v"}))
    pipeline.vae.save_pretrained(folder / "vae")
    config = wan.read_wan_autoencoder(folder / "vae")
    shutil.rmtree(folder / "vae")
    keys, original = (dict(autoencoder_keys(config, layout)) for layout in ("diffusers", "original"))
    state = pipeline.vae.state_dict()
    torch.save({original[name][0]: state[keys[name][0]] for name in keys}, folder / f"Wan{version}_VAE.pth")
    monkeypatch.setattr(wan, f"WAN{version.replace('.', '')}_AUTOENCODER", config)  # the released are not tiny
    state = pipeline.text_encoder.state_dict()
    keys, original = (dict(key_map(wan_text.text_rows(2), layout)) for layout in ("diffusers", "original"))
    tensors = {original[name][0]: state[keys[name][0]] for name in keys}
    torch.save(tensors, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    monkeypatch.setattr(wan_text, "UMT5_XXL", pipeline.text_encoder.config.to_dict())
    pipeline.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    return folder


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_the_original_layout_makes_the_same(
    version: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = original_folder(tmp_path / "original", version, monkeypatch)
    first, second = load(folders[version]), load(original)
    assert first.native == second.native
    assert first.bundle.card.one_level == second.bundle.card.one_level == (version == "2.1")
    for part in ("transformer", "autoencoder"):
        one, other = (getattr(each.bundle, part).state_dict() for each in (first, second))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    made, again = (make(each, version, seconds=0.2).frames.astype(int) for each in (first, second))
    assert np.abs(made - again).max() <= 1  # where a mapped tensor begins differs, and some kernels round by that


def test_what_a_folder_makes_is_read_without_loading_it(folders: dict[str, Path]) -> None:
    small, large = read_native(folders["2.1"]), read_native(folders["2.2"])
    assert (small.size, small.fps, small.frames_max, small.grid.step) == ((832, 480), 16.0, 81, 16)
    assert (large.size, large.fps, large.frames_max, large.grid.step) == ((1280, 704), 24.0, 121, 32)
    card = load(folders["2.1"]).bundle.card
    assert (card.shift_for((832, 480)), card.shift_for((1280, 720))) == (3.0, 5.0)


# ---- LoRAs -----------------------------------------------------------------------------------------------------------

MODULES = ("blocks.0.attention.qkv", "blocks.1.cross.kv", "blocks.1.ffn.down", "time.modulation", "blocks.0.cross.out")


def lora_of(names: str, layout: Any, tensors: dict[str, torch.Tensor], folder: Path) -> tuple[str, dict[str, Any]]:
    """A LoRA in one of the forms that programs write, and what it adds by our names."""
    keys, made, wanted = transformer_keys(2, layout), {}, {}
    generator = torch.Generator().manual_seed(1)
    for module in MODULES:
        parts = []
        for theirs in keys[f"{module}.weight"]:
            rows, columns = tensors[f"{module}.weight"].shape
            down = torch.randn(2, columns, generator=generator)
            up = torch.randn(rows // len(keys[f"{module}.weight"]), 2, generator=generator)
            name = theirs.removesuffix(".weight")
            alpha = 3.0 if names in ("kohya", "musubi") else 2.0
            if names == "diffusers":
                made |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
            elif names == "peft":
                stem = f"base_model.model.{name}"
                made |= {f"{stem}.lora_A.default.weight": down, f"{stem}.lora_B.default.weight": up}
            else:
                stem = f"diffusion_model.{name}" if names == "kohya" else "lora_unet_" + name.replace(".", "_")
                made |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
                made[f"{stem}.alpha"] = torch.tensor(alpha)
            parts.append(alpha / 2 * up @ down)
        wanted[f"{module}.weight"] = torch.cat(parts)
    if names == "kohya":  # as few-step LoRAs have them
        theirs = keys["blocks.0.norm_cross.weight"][0].removesuffix(".weight")
        made[f"diffusion_model.{theirs}.diff"] = wanted["blocks.0.norm_cross.weight"] = torch.randn(32)
        made[f"diffusion_model.{theirs}.diff_b"] = wanted["blocks.0.norm_cross.bias"] = torch.randn(32)
    path = folder / f"{names}.safetensors"
    save_file(made, path)
    return str(path), wanted


@pytest.mark.parametrize(
    ("names", "layout"),
    [("diffusers", "diffusers"), ("peft", "original"), ("kohya", "original"), ("musubi", "original")],
)
def test_loras_of_other_programs(names: str, layout: str, tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path / "model")
    plain = load_wan_transformer(tmp_path / "model")
    path, wanted = lora_of(names, layout, plain.state_dict(), tmp_path)
    changes = WanChanges([LoraUse(path, 0.5)], plain.config)
    changed = load_wan_transformer(tmp_path / "model", changes=changes).state_dict()
    assert set(changes) == set(wanted)
    for name, before in plain.state_dict().items():
        expected = before + 0.5 * wanted[name] if name in wanted else before
        assert torch.allclose(changed[name], expected, atol=1e-6), name


@pytest.mark.parametrize("ending", [".modulation.diff", ".diff_m"])
def test_a_lora_that_changes_modulation(ending: str, tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path / "model")
    plain, path = load_wan_transformer(tmp_path / "model"), tmp_path / "l.safetensors"
    tables = {name: plain.state_dict()[f"{name}.table"] for name in ("blocks.0", "head")}
    changes = {name: torch.randn(1, *table.shape) for name, table in tables.items()}
    save_file({f"diffusion_model.{name}{ending}": change for name, change in changes.items()}, path)
    changed = load_wan_transformer(tmp_path / "model", changes=WanChanges([LoraUse(str(path), 0.5)], plain.config))
    for name, table in tables.items():
        assert torch.allclose(changed.state_dict()[f"{name}.table"], table + 0.5 * changes[name][0], atol=1e-6)
    assert torch.equal(changed.state_dict()["blocks.1.table"], plain.state_dict()["blocks.1.table"])


def test_the_bias_of_a_lora_is_scaled_as_its_matrices_are(tmp_path: Path) -> None:
    tiny_transformer().save_pretrained(tmp_path / "model")
    plain, path = load_wan_transformer(tmp_path / "model"), tmp_path / "l.safetensors"
    name, bias = "blocks.0.ffn.0", torch.randn(56)
    parts = {"lora_A.weight": torch.zeros(2, 32), "lora_B.weight": torch.zeros(56, 2), "lora_B.bias": bias}
    save_file({f"{name}.{key}": part for key, part in parts.items()} | {f"{name}.alpha": torch.tensor(1.0)}, path)
    changes = WanChanges([LoraUse(str(path), 0.5)], plain.config)
    assert torch.allclose(changes["blocks.0.ffn.up.bias"], 0.5 * 0.5 * bias)


def test_a_model_is_told_the_levels_that_diffusers_tells(folders: dict[str, Path], tmp_path: Path) -> None:
    """Where rounding decides which whole number they are: at shift 1, in 27 steps."""
    library: Any = importlib.import_module("diffusers")
    folder = shutil.copytree(folders["2.1"], tmp_path / "model")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"flow_shift": 1.0}))
    theirs = library.UniPCMultistepScheduler.from_pretrained(folder / "scheduler")
    theirs.set_timesteps(sigmas=np.flip(1.0 - np.linspace(1, 1 / 1000, 28))[:-1].copy())  # the grid of 0.36
    generator = load(folder)
    told: list[float] = []
    generator.bundle.transformer.register_forward_pre_hook(lambda _, given: told.append(float(given[1].max()) * 1000))
    generator.generate("a ball", size=SIZE["2.1"], steps=27, seed=4, guidance=1.0, seconds=0.3)
    assert [round(level) for level in told] == theirs.timesteps.tolist()


def test_a_lora_as_diffusers_reads_it(folders: dict[str, Path], tmp_path: Path) -> None:
    """The converter of diffusers and ours agree on where the names of the original release belong."""
    library: Any = importlib.import_module("diffusers.loaders.lora_conversion_utils")
    plain = load_wan_transformer(folders["2.1"] / "transformer")
    path, _ = lora_of("kohya", "original", plain.state_dict(), tmp_path)
    left_out = ("norm3", "time_projection")  # which it takes only in part
    tensors = {name: value for name, value in load_file(path).items() if not any(part in name for part in left_out)}
    save_file(tensors, tmp_path / "first.safetensors")
    converted = library._convert_non_diffusers_wan_lora_to_diffusers(tensors)
    save_file({name: value.contiguous() for name, value in converted.items()}, tmp_path / "second.safetensors")
    first, second = (
        WanChanges([LoraUse(str(tmp_path / f"{name}.safetensors"))], plain.config) for name in ("first", "second")
    )
    assert set(first) == set(second) and len(first) == len(MODULES) - 1
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-6)


def test_a_lora_changes_the_video_and_is_in_its_recipe(folders: dict[str, Path], tmp_path: Path) -> None:
    plain = load(folders["2.1"])
    tensors = load_wan_transformer(folders["2.1"] / "transformer").state_dict()
    path, _ = lora_of("diffusers", "diffusers", tensors, tmp_path)
    changed = load(folders["2.1"], lora=f"{path}:0.3")
    first, second = make(plain, "2.1", seconds=0.3), make(changed, "2.1", seconds=0.3)
    assert not np.array_equal(first.frames, second.frames)
    assert second.recipe is not None and second.recipe.lora == [f"{path}:0.3"]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"diffusion_model.blocks.9.ffn.0.lora_down.weight": (2, 32)}, "no LoRA for this model"),
        ({"diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight": (2, 32)}, "no LoRA for this model"),
        ({"diffusion_model.blocks.0.ffn.0.lora_down.weight": (2, 32)}, "one part is missing"),
        ({"blocks.0.ffn.0.lora_down.weight": (2, 32), "blocks.0.ffn.0.lora_up.weight": (56, 3)}, "do not fit"),
        ({"blocks.0.ffn.0.lora_down.weight": (2, 16), "blocks.0.ffn.0.lora_up.weight": (56, 2)}, "another model"),
        ({"blocks.0.ffn.0.diff": (7,)}, "another model"),
        ({"blocks.0.ffn.0.diff": ()}, "is one number"),
        ({"blocks.0.ffn.0.diff": (56, 32), "transformer.blocks.0.ffn.0.diff": (56, 32)}, "twice, by two names"),
        ({"blocks.0.ffn.0.diff": (56, 32), "lora_unet_blocks_0_ffn_0.diff": (56, 32)}, "twice, by two names"),
        ({"blocks.0.ffn.0.diff": (56, 32), "blocks.0.ffn.net.0.proj.diff": (56, 32)}, "twice, by two names"),
        ({"blocks.0.ffn.0.lora_B.bias": (56,)}, "one part is missing"),
    ],
)
def test_bad_loras(tensors: dict[str, tuple[int, ...]], said: str, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(ModelError, match=said):
        load(folders["2.1"], lora=str(path))


def test_loras_with_numbers_that_mean_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    parts = {"blocks.0.ffn.0.lora_down.weight": torch.ones(2, 32), "blocks.0.ffn.0.lora_up.weight": torch.ones(56, 2)}
    for changed, said in (
        ({"blocks.0.ffn.0.alpha": torch.ones(2)}, "the alpha of blocks.0.ffn.0 is not one number"),
        ({"blocks.0.ffn.0.alpha": torch.tensor(torch.nan)}, "numbers that are not finite, in blocks.0.ffn.0.alpha"),
        ({name: part.to(torch.int8) for name, part in parts.items()}, "of type int8, not of floats"),
        ({"blocks.0.ffn.0.alpha": torch.tensor(1 + 2j)}, "of type complex64, not of floats"),
    ):
        save_file(parts | changed, path)
        with pytest.raises(ModelError, match=said):
            load(folders["2.1"], lora=str(path))
    save_file(parts | {"blocks.0.ffn.0.alpha": torch.tensor(2)}, path)  # a whole number will do
    load(folders["2.1"], lora=str(path))
    torch.save(parts, path)
    with pytest.raises(ModelError, match="is a pickle, which can run code"):
        load(folders["2.1"], lora=str(path))
    with pytest.raises(ModelError, match=r"there is no LoRA .*: give the \.safetensors file"):
        load(folders["2.1"], lora=str(tmp_path))


# ---- bad folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    {"num_res_blocks": 2.5}, {"num_res_blocks": 10**6}, {"base_dim": 65536, "dim_mult": [65536] * 4},
    {"base_dim": 10**400}, {"dim_mult": 4}, {"patch_size": 0.5},
    {"latents_mean": [float("nan")] * 16}, {"latents_std": ["wide"] * 16},
], ids=str)  # fmt: skip
def test_odd_configurations_of_an_autoencoder(change: dict[str, Any], folders: dict[str, Path], tmp_path: Path) -> None:
    fields = json.loads((folders["2.1"] / "vae" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | change))
    with pytest.raises(ModelError, match="describes no autoencoder of Wan") as raised:
        wan.read_wan_autoencoder(tmp_path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "StableDiffusionPipeline, which Yozora does not run"),
        ({"_class_name": "WanImageToVideoPipeline"}, "which Yozora does not run"),
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "two transformers"),
    ],
)
def test_other_pipelines(change: dict[str, Any], said: str, folders: dict[str, Path], tmp_path: Path) -> None:
    index = json.loads((folders["2.1"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(ModelError, match=said):
        load(tmp_path)


def test_a_shift_that_is_no_number_is_not_another_shift(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["2.1"], folder)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    for shift, kept, large in ((7, 7.0, 7.0), (None, 3.0, 5.0), (3, 3.0, 5.0)):
        scheduler.write_text(json.dumps({"flow_shift": shift}))
        assert read_parts(folder)[0].shift == kept
        card = load(folder).bundle.card
        assert (card.shift_for((832, 480)), card.shift_for((1280, 720))) == (kept, large)
    scheduler.write_text('{"flow_shift": "5"}')
    with pytest.raises(ModelError, match="its flow_shift is '5', which is no number"):
        read_parts(folder)


def test_a_part_is_missing(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["2.1"], folder)
    shutil.rmtree(folder / "vae")
    with pytest.raises(ModelError, match=r"vae.config.json is missing"):
        load(folder)


def test_a_tensor_in_two_shards_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["2.1"], folder)
    whole = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    parts = {"1.safetensors": names[:9], "2.safetensors": names[9:]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, whole.with_name(file))
    where = {name: file for file, own in parts.items() for name in own}
    whole.unlink()
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps({"weight_map": where}))
    load(folder)
    twice = {name: tensors[name] for name in names[9:]} | {names[0]: torch.zeros_like(tensors[names[0]])}
    save_file(twice, whole.with_name("2.safetensors"))
    with pytest.raises(ModelError, match=f"{names[0]} is in two of its files"):
        load(folder)


def test_a_decoder_that_gives_no_numbers_is_no_video(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["2.1"], folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"decoder.conv_in.bias": tensors["decoder.conv_in.bias"] * torch.nan}, weights)
    with pytest.raises(ModelError, match="the decoder gave numbers that are not finite"):
        make(load(folder), "2.1", seconds=0.3)


@pytest.mark.parametrize("switches", [(), ("--weights", "int8", "--offload", "disk", "--tile", "64")])
def test_the_command_line(switches: tuple[str, ...], folders: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    arguments = ["generate", "a red ball", "--model", str(folders["2.2"]), "--size", "64x32", "--seconds", "0.2",
                 "--steps", "2", "--seed", "1", "--device", "cpu", "-o", str(output)]  # fmt: skip
    assert main([*arguments, *switches]) == 0
    clip = yozora.Clip.read(output)
    assert clip.frames.shape == (5, 32, 64, 3) and clip.recipe is not None
    assert (clip.recipe.weights, clip.recipe.tile) == (("int8", 64) if switches else ("", 0))


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        (("--offload", "cpu"), "error: on a CPU the weights are in its memory anyway: offload to disk"),
        (("--weights", "int3"), "error: weights 'int3' is none of int8, fp8"),
        (("--tile", "32"), "error: tiles of 32 pixels are too small for this model: ask for 64 or more"),
        (("--compile", "--offload", "disk"), "error: compiled blocks cannot be offloaded: leave one of the two out"),
    ],
)
def test_switches_that_cannot_be(
    switches: tuple[str, ...], said: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "a ball", "--model", str(folders["2.2"]), "--size", "64x32", "--device", "cpu"]
    assert main([*arguments, "-o", str(tmp_path / "out.mp4"), *switches]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert not (tmp_path / "out.mp4").exists()
