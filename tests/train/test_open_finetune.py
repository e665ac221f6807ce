"""Fine-tuning of open models, on tiny random folders of Wan: what is learned, who reads it, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import yozora
from yozora.cli import main
from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.models.lora import Lora, LoraConfig, LoraUse
from yozora.models.wan import load_wan_transformer
from yozora.models.wan_lora import WanChanges, save_wan_lora
from yozora.train.base import find_base
from yozora.train.finetune import finetune, train_lora
from yozora.train.finetune_config import LoraStage
from yozora.train.flow import draw_levels
from yozora.train.tuning import LoraTask

sys.path.append(str(Path(__file__).parents[1] / "parity"))
tiny_pipeline = importlib.import_module("wan_models").tiny_pipeline
original_folder = importlib.import_module("test_wan_folder").original_folder

QUICK = ["run.device=cpu", "run.precision=fp32", "run.workers=0", "run.log_every=1", "footage.frames=5"]
QUICK += ["footage.sizes=[[64, 32]]"]
pytestmark = pytest.mark.filterwarnings("ignore::yozora.create.generator.YozoraWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for version in ("2.1", "2.2"):
        made[version] = tmp_path_factory.mktemp("open") / version
        tiny_pipeline(version).save_pretrained(made[version])
    return made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(2):
        frames = np.full((9, 32, 64, 3), 40 + 100 * number, np.uint8)
        frames[:, 8:24, 16:40, number] = 230
        Clip(frames, 16.0).write(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a red ball" if number else "a ball")
    return folder


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_a_lora_learns_is_read_again_and_a_run_goes_on(
    version: str, folders: dict[str, Path], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*QUICK, "run.steps=16", "optim.adamw=0.05", "model.rank=4", "batch=2", "drop_prompt=0"]
    file = train_lora(clips, tmp_path / "a.safetensors", str(folders[version]), settings)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 16 and np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    names = set(load_file(file))
    assert "transformer.blocks.1.attn1.to_k.lora_A.weight" in names and all(".blocks." in name for name in names)

    def make(**options: Any) -> np.ndarray:
        generator = yozora.load(folders[version], "cpu", torch.float32, **options)
        return generator.generate("a red ball", size=(64, 32), seconds=0.3, steps=2).frames

    assert not np.array_equal(make(), make(lora=file))
    assert np.array_equal(make(), make(lora=f"{file}:0"))
    train_lora(clips, file, str(folders[version]), [*settings, "run.steps=17"])
    said = capsys.readouterr().out
    assert "resumed from step 16" in said and "read by the text encoder" not in said  # which has done so once


def stage_of(folder: Path, run: Path, **changed: Any) -> LoraStage:
    """The stage of a run that has been prepared in `run`."""
    base = find_base(folder)
    given: dict[str, Any] = {
        "start_from": folder, "name": "tiny", "states": run / "captions", "pool": run / "latents",
        "autoencoder": base.autoencoder, "anchored": 0.0, "drop_prompt": 0.0, "shift": 3.0,
        "buckets": [{"width": 64, "height": 32, "frames": 5, "batch": 2}],
        "run": {"out": run / "training", "steps": 1, "device": "cpu", "precision": "fp32"}, "optim": {"adamw": 1e-3},
        "model": {"rank": 3},
    }  # fmt: skip
    return LoraStage(**given | changed)


@pytest.fixture(scope="module")
def prepared(folders: dict[str, Path], clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on Wan 2.1: latents, states of captions."""
    out = tmp_path_factory.mktemp("run") / "a.safetensors"
    train_lora(clips, out, str(folders["2.1"]), [*QUICK, "run.steps=1"])
    return out.with_name("a.safetensors.run")


def test_what_is_asked_is_what_diffusers_says(folders: dict[str, Path], clips: Path, prepared: Path) -> None:
    """The loss is that of diffusers' modules: latents by its autoencoder, states by its text encoder, whole thousandths
    as times, and noise minus latents as what is to be said."""
    stage = stage_of(folders["2.1"], prepared)
    task = LoraTask(stage)
    batch = task.source.batch(0)
    said, _ = task.loss(batch, torch.Generator().manual_seed(5))

    pipeline = tiny_pipeline("2.1")
    statistics = [torch.tensor(getattr(pipeline.vae.config, f"latents_{kind}")) for kind in ("mean", "std")]
    mean, std = (each.view(1, -1, 1, 1, 1) for each in statistics)
    shown = {}
    for number, caption in enumerate(("a ball", "a red ball")):
        frames = torch.from_numpy(Clip.read(clips / f"{number}.mp4").frames[:5]).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            shown[caption] = (pipeline.vae.encode(frames.float() / 127.5 - 1).latent_dist.mode() - mean) / std
    latents = torch.cat([shown[caption] for caption in batch.captions])
    torch.testing.assert_close(batch.latents, latents, atol=5e-3, rtol=5e-3)  # stored as float16
    generator = torch.Generator().manual_seed(5)
    levels = draw_levels(2, 2, stage, generator)
    noise = torch.randn(2, *batch.latents.shape[1:], generator=generator)
    noisy = torch.lerp(batch.latents, noise, levels[:, None, :, None, None])
    with torch.no_grad():
        states = pipeline.encode_prompt(batch.captions, do_classifier_free_guidance=False)[0]
        velocity = pipeline.transformer(noisy, (1000 * levels[:, 0]).floor(), states, return_dict=False)[0]
    assert said.item() == pytest.approx((velocity - (noise - batch.latents)).square().mean().item(), rel=1e-4)


def test_blocks_that_are_worked_out_again_learn_the_same(folders: dict[str, Path], prepared: Path) -> None:
    gradients = []
    for kind in ("none", "selective", "full"):
        task = LoraTask(stage_of(folders["2.1"], prepared, checkpointing=kind))
        for number, each in enumerate(task.lora.up.values()):
            torch.nn.init.normal_(each, std=0.1, generator=torch.Generator().manual_seed(number))
        loss, _ = task.loss(task.source.batch(0), torch.Generator().manual_seed(5))
        loss.backward()
        gradients.append([each.grad for each in task.lora.parameters()])
    assert all(each is not None and each.abs().max() > 0 for each in gradients[0])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_other_programs_read_it(folders: dict[str, Path], tmp_path: Path) -> None:
    """What a LoRA changes, in layers of all kinds, is the same by diffusers' names and by ours."""
    base = load_wan_transformer(folders["2.1"] / "transformer")
    torch.manual_seed(0)
    lora = Lora(LoraConfig(rank=3, alpha=1.5), base)
    for each in lora.up.values():
        torch.nn.init.normal_(each, std=0.2)
    save_wan_lora(lora, base.config, tmp_path / "a.safetensors", "tiny")
    theirs, tensors = tiny_pipeline("2.1").transformer, load_file(tmp_path / "a.safetensors")
    for name in {name.rsplit(".lora_")[0] for name in tensors}:
        weight = theirs.get_submodule(name.removeprefix("transformer.")).weight
        down, up = (tensors[f"{name}.lora_{part}.weight"].float() for part in "AB")
        weight.data += (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    changes = WanChanges([LoraUse(str(tmp_path / "a.safetensors"))], base.config)
    ours = load_wan_transformer(folders["2.1"] / "transformer", changes=changes)
    latents, levels, states = torch.randn(1, 4, 2, 4, 8), torch.tensor([[0.5]]), torch.randn(1, 7, 24)
    with torch.no_grad(), lora.attached(base):
        said = theirs(latents, torch.tensor([500.0]), states, return_dict=False)[0]
        torch.testing.assert_close(ours(latents, levels, states), said, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(base(latents, levels, states), said, atol=5e-3, rtol=5e-3)  # before it was stored


def test_all_weights_of_an_open_model(
    folders: dict[str, Path], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(folders["2.2"], folder)
    asked = ["train", "finetune", str(clips), "--model", str(folder), "-o", str(tmp_path / "mine"), "--steps", "2"]
    asked += [part for setting in [*QUICK, "run.sample_every=2"] for part in ("--set", setting)]
    assert main(asked) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "mine.run" / "training" / "samples").glob("*.mp4"))) == 2
    made, base = (yozora.load(each, "cpu", torch.float32).bundle for each in (tmp_path / "mine", folder))
    assert made.card == dataclasses.replace(base.card, name="mine")
    pairs = zip(made.transformer.parameters(), base.transformer.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "mine", "mine.run"}
    before = sorted((path.relative_to(folder), path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert main(asked) == 0  # in the place of what was made before
    assert before == sorted((path.relative_to(folder), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_the_layout_of_the_original_release(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = original_folder(tmp_path / "base", "2.1", monkeypatch)
    made = finetune(clips, tmp_path / "mine", str(folder), [*QUICK, "run.steps=1", "optim.adamw=0.1", "optim.warmup=0"])
    one, other = (yozora.load(each, "cpu", torch.float32).bundle.transformer for each in (made, folder))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    others = {path.name for path in folder.iterdir() if not path.name.startswith("diffusion_pytorch_model")}
    assert {path.name for path in made.iterdir()} == others | {"diffusion_pytorch_model.safetensors", "model.json"}


def test_what_cannot_be(folders: dict[str, Path], clips: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "a.safetensors", str(folders["2.1"])
    for run, setting, message in (
        (train_lora, "model.rank=0", "rank must be from 1"),
        (train_lora, "anchored=0.5", "one noise level a clip"),
        (train_lora, "prior=0.5", "prior is for models that have learned from the simulated world"),
        (finetune, "compile=true", "compile and model are for models of Yozora's own"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(clips, out, model, [*QUICK, setting])
    with pytest.raises(ConfigError, match="is the model that is learned from"):
        finetune(clips, folders["2.1"], model, QUICK)
    with pytest.raises(ConfigError, match="is the model that is learned from, or in it: name another folder"):
        finetune(clips, folders["2.1"] / "mine", model, QUICK)  # which would hold itself
    assert not list(tmp_path.iterdir())
