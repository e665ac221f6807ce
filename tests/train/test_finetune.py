"""Fine-tuning on a folder of clips, in one command: what it writes, that it learns, resumes and refuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.cli import main
from yozora.clip import Clip
from yozora.errors import ConfigError, ModelError
from yozora.models.lora import LoraUse, read_lora
from yozora.models.registry import load_bundle, merge_loras
from yozora.train import finetune as of_finetune
from yozora.train.config import TransformerStage
from yozora.train.data import LatentPool
from yozora.train.finetune import finetune, train_lora
from yozora.train.finetune_config import LoraStage
from yozora.train.lessons import PoolBatches
from yozora.train.settings import check_config, read_config

QUICK = ["run.device=cpu", "run.precision=fp32", "run.workers=0", "run.sample_every=0", "run.log_every=1", "batch=2"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of a striped square, and a picture of it."""
    folder = tmp_path_factory.mktemp("clips")
    rows = np.indices((64, 64))[0]
    for number in range(4):
        frames = np.full((9, 64, 64, 3), 90, np.uint8)
        frames[:, 16:48, 16:48] = np.where((rows // 4) % 2, 250, 20)[None, 16:48, 16:48, None]
        Clip(np.roll(frames, number * 4, axis=2), 8.0).write(folder / f"{number}.mp4")
        (folder / f"{number}.txt").write_text("a zorb")
    Clip(frames[:1], 8.0).write(folder / "still.png")
    (folder / "still.txt").write_text("a zorb, seen once")
    return folder


def test_a_lora_learns_and_a_resumed_run_is_the_same(
    tiny_model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*QUICK, "run.steps=40", "optim.adamw=0.01", "model.rank=4", "batch=4", "drop_prompt=0"]
    file = train_lora(clips, tmp_path / "a.safetensors", str(tiny_model), settings)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert len(losses) == 40 and np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    whole = read_lora(file)
    assert any(change.abs().max() > 1e-3 for change in whole.values())
    assert (tmp_path / "a.safetensors.run" / "latents" / "unit-00000.json").exists()
    plain = yozora.load(tiny_model, "cpu", torch.float32).generate("a zorb").frames
    assert not np.array_equal(plain, yozora.load(tiny_model, "cpu", torch.float32, lora=file).generate("a zorb").frames)

    broken_off = [*settings, "run.checkpoint_seconds=1"]
    with pytest.MonkeyPatch.context() as patch:
        from yozora.train.finetune import LoraTask

        real = LoraTask.loss

        def stop_at_20(self: LoraTask, batch: object, generator: torch.Generator) -> object:
            if generator.initial_seed() % 1_000_003 == 20:
                import signal

                signal.raise_signal(signal.SIGINT)
            return real(self, batch, generator)  # type: ignore[arg-type]

        patch.setattr(LoraTask, "loss", stop_at_20)
        with pytest.raises(KeyboardInterrupt):
            train_lora(clips, tmp_path / "b.safetensors", str(tiny_model), broken_off)
    again = read_lora(train_lora(clips, tmp_path / "b.safetensors", str(tiny_model), broken_off))
    for name, change in whole.items():
        torch.testing.assert_close(again[name], change, atol=1e-3, rtol=1e-3)


def test_a_finetuned_model_is_a_folder_of_its_own(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    made = finetune(clips, tmp_path / "mine", str(tiny_model), [*QUICK, "run.steps=2", "optim.adamw=0.01"])
    bundle, base = load_bundle(made), load_bundle(tiny_model)
    assert bundle.card.name == "mine" and bundle.card.sizes == base.card.sizes
    pairs = zip(bundle.transformer.parameters(), base.transformer.parameters(), strict=True)
    assert any(not torch.allclose(one.float(), other.float(), atol=1e-3) for one, other in pairs)
    assert yozora.load(made, "cpu").generate("a zorb").frames.shape == (9, 64, 64, 3)


def test_from_the_command_line(
    tiny_model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [part for setting in QUICK[1:] for part in ("--set", setting)]
    asked = ["--model", str(tiny_model), "--device", "cpu", "--steps", "2", *quick]
    assert main(["train", "lora", str(clips), "-o", "z.safetensors", "--rank", "2", *asked]) == 0
    assert "lora: written to z.safetensors; try: yozora generate" in capsys.readouterr().out
    assert main(["train", "finetune", str(clips), "-o", "mine", *asked]) == 0
    made = ["--model", str(tiny_model), "--device", "cpu", "--seed", "1"]
    assert main(["generate", "a zorb", "--lora", "z.safetensors:0.5", "-o", "a.mp4", *made]) == 0
    assert Clip.read("a.mp4").recipe.lora == ["z.safetensors:0.5"]  # type: ignore[union-attr]
    assert main(["again", "a.mp4", "-o", "b.mp4", "--model", str(tiny_model), "--device", "cpu"]) == 0
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["again", "../a.mp4", "-o", "b.mp4", "--model", str(tiny_model), "--device", "cpu"]) == 0
    assert Clip.read("b.mp4").recipe.lora == ["../z.safetensors:0.5"]  # type: ignore[union-attr]
    assert "warning" not in capsys.readouterr().err
    other = (tmp_path / "z.safetensors").read_bytes()
    train_lora(clips, tmp_path / "z.safetensors", str(tiny_model), [*QUICK, "run.steps=3", "model.rank=2"])
    assert (tmp_path / "z.safetensors").read_bytes() != other
    assert main(["again", "../a.mp4", "-o", "b.mp4", "--model", str(tiny_model), "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "warning: ../z.safetensors is not the LoRA that ../a.mp4 was made with" in said
    (tmp_path / "z.safetensors").rename(tmp_path / "y.safetensors")
    assert main(["again", "../a.mp4", "-o", "c.mp4", "--model", str(tiny_model), "--device", "cpu"]) == 2
    assert "was made from z.safetensors, which is not here" in capsys.readouterr().err
    (tmp_path / "y.safetensors").rename(tmp_path / "z.safetensors")
    monkeypatch.chdir(tmp_path)
    assert main(["models", "merge", str(tiny_model), "--lora", "z.safetensors:0.5", "-o", "merged"]) == 0
    assert main(["generate", "a zorb", "--model", "merged", "--device", "cpu", "-o", "c.mp4"]) == 0


def test_what_cannot_be_learned_from(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "a.safetensors", str(tiny_model)
    for describe in (None, lambda *_: None):
        with pytest.raises(ConfigError, match="there is no clip or picture"):
            train_lora(tmp_path, out, model, QUICK, describe=describe)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^-o: cannot make the folder .*a\.safetensors\.run"):
        train_lora(clips, tmp_path / "file" / "a.safetensors", model, QUICK)
    with pytest.raises(ModelError, match="there is no model"):
        train_lora(clips, out, "no such", QUICK)
    with pytest.raises(ConfigError, match=r"unknown setting run\.step; is steps meant\?"):
        train_lora(clips, out, model, [*QUICK, "run.step=3"])
    with pytest.raises(ConfigError, match=r"unknown setting footage\.captoin; is caption meant\?"):
        train_lora(clips, out, model, [*QUICK, "footage.captoin=x"])
    with pytest.raises(ConfigError, match=r"unknown setting model\.rnk; is rank meant\?"):
        train_lora(clips, out, model, [*QUICK, "model.rnk=3", "run.steps=1"])
    assert not out.exists()


def test_a_checkpoint_of_another_rank_is_refused(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    settings = [*QUICK, "run.steps=1"]
    train_lora(clips, tmp_path / "a.safetensors", str(tiny_model), [*settings, "model.rank=2"])
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="does not fit this configuration"):
        train_lora(clips, tmp_path / "a.safetensors", str(tiny_model), [*settings, "model.rank=3"])
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optim.adamv=1", r"unknown setting optim\.adamv; is adamw meant\?"),
        ("run.qqqqqq=1", r"unknown setting run\.qqqqqq; known: out, seed"),
        ("pol=1", r"unknown setting pol; is pool meant\?"),
        ("buckets=[{width=32, hight=32, frames=5, batch=1}]", r"hight; is height meant\?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(tmp_path: Path, key: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'pool="p"\nautoencoder="a"\ntext_encoder="t"\nbuckets=[{width=32, height=32, frames=5, batch=1}]\n'
        '[run]\nout="o"\nsteps=1\n[optim]\nadamw=0.1\n'
    )
    with pytest.raises(ConfigError, match=message):
        read_config(TransformerStage, path, [key])


def test_what_was_there_stays_when_a_run_is_stopped_and_no_resume_begins_anew(
    tiny_model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    from yozora.train.finetune import LoraTask

    out, settings = tmp_path / "a.safetensors", [*QUICK, "run.steps=4"]
    before = train_lora(clips, out, str(tiny_model), settings).read_bytes()
    assert out.stat().st_mode & 0o044
    real = LoraTask.loss

    def stop(self: LoraTask, batch: object, generator: torch.Generator) -> object:
        signal.raise_signal(signal.SIGINT)
        return real(self, batch, generator)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoraTask, "loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train_lora(clips, out, str(tiny_model), [*settings, "run.seed=0"], resume=False)
    assert out.read_bytes() == before
    assert (tmp_path / "a.safetensors.run" / "training" / "export" / "lora.safetensors").exists()
    capsys.readouterr()
    train_lora(clips, out, str(tiny_model), settings)
    assert "resumed from step 1" in capsys.readouterr().out  # not from the end of the first run
    for bad in (Path("."), tmp_path):
        with pytest.raises(ConfigError, match="cannot be written: name a file"):
            train_lora(clips, bad, str(tiny_model), settings)


def test_a_checkpoint_belongs_to_one_model(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "a.safetensors", [*QUICK, "run.steps=1"]
    train_lora(clips, out, str(tiny_model), settings)
    before, other = out.read_bytes(), tmp_path / "other"
    merge_loras(str(tiny_model), [LoraUse(str(out), 5.0)], other)
    with pytest.raises(ConfigError, match=r"a\.safetensors\.run holds a run on another model; use --no-resume"):
        train_lora(clips, out, str(other), [*settings, "run.steps=2"])
    assert out.read_bytes() == before
    train_lora(clips, out, str(other), settings, resume=False)
    train_lora(clips, out, str(other), settings)


def test_what_was_learned_by_other_settings_is_said_to_stay(
    tiny_model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, settings = tmp_path / "a.safetensors", [*QUICK, "run.steps=1", "model.rank=2"]
    before = read_lora(train_lora(clips, out, str(tiny_model), settings))
    train_lora(clips, out, str(tiny_model), settings)
    said = capsys.readouterr().out
    assert "by other settings" not in said and "step 1 of 1 was reached before" in said
    changed = [*settings, "optim.adamw=0.05", "batch=3", "run.log_every=2"]
    same = read_lora(train_lora(clips, out, str(tiny_model), changed))
    said = capsys.readouterr().out
    assert "what was learned by other settings (batch, optim.adamw) stays; --no-resume begins anew" in said
    assert all(torch.equal(same[name], change) for name, change in before.items())
    other = read_lora(train_lora(clips, out, str(tiny_model), changed, resume=False))
    assert "by other settings" not in capsys.readouterr().out
    assert any(not torch.equal(other[name], change) for name, change in before.items())


def test_a_lora_that_cannot_be_put_in_its_place_leaves_nothing_half_written(
    tiny_model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ConfigError, match=r"No space left on device\); the LoRA is in .*lora\.safetensors"):
        train_lora(clips, tmp_path / "a.safetensors", str(tiny_model), [*QUICK, "run.steps=1"])
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors.run"}


def test_settings_are_checked_before_anything_is_encoded(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "a.safetensors", str(tiny_model)
    for run, setting, message in (
        (train_lora, "model.rank=0", "rank must be from 1"),
        (train_lora, "compile=true", "compile is for"),
        (finetune, "model.heads=1", r"model\.heads: .* were made for \d, not 1"),
        (finetune, "model.widht=4", r"unknown setting model\.widht; is width meant\?"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(clips, out, model, [*QUICK, setting])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "place", ["clips/0.mp4", "clips/0.txt", "model/transformer/model.safetensors", "other.safetensors"]
)
def test_a_lora_takes_the_place_of_loras_only(place: str, tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copyfile(next((tiny_model / "transformer").glob("*.safetensors")), tmp_path / "other.safetensors")
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"in the model that|ends in \.safetensors|is there and is no LoRA") as caught:
        train_lora(tmp_path / "clips", tmp_path / place, str(tmp_path / "model"), [*QUICK, "run.steps=1"])
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there
    with pytest.raises(ConfigError, match="in the model that"):
        train_lora(clips, tmp_path / "model" / "new.safetensors", str(tmp_path / "model"), QUICK)


def test_a_refused_change_is_not_taken_down(
    tiny_model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, settings = tmp_path / "a.safetensors", [*QUICK, "model.rank=2"]
    train_lora(clips, out, str(tiny_model), [*settings, "run.steps=1"])
    with pytest.raises(ConfigError, match=r"model\.rank is 2 in the checkpoint and 3 here"):
        train_lora(clips, out, str(tiny_model), [*settings, "run.steps=2", "model.rank=3"])
    capsys.readouterr()
    train_lora(clips, out, str(tiny_model), [*settings, "run.steps=2"])
    assert "by other settings" not in capsys.readouterr().out


def test_a_finetuned_model_takes_the_place_of_models_only(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "mine", [*QUICK, "run.steps=1"]
    out.mkdir()
    finetune(clips, out, str(tiny_model), settings)  # an empty folder is as good as none
    (out / "left over").touch()
    finetune(clips, out, str(tiny_model), [*settings, "run.steps=2"])
    assert not (out / "left over").exists() and load_bundle(out).name == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.run"}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(ConfigError, match="photos holds something that is no model"):
        finetune(clips, tmp_path / "photos", str(tiny_model), settings)


def test_a_model_that_cannot_take_its_place_leaves_the_one_that_was_there(
    tiny_model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "mine", [*QUICK, "run.steps=1"]
    finetune(clips, out, str(tiny_model), settings)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    real = os.replace

    def fails(source: Path | str, target: Path | str) -> None:
        if Path(target) == out and Path(source).name == ".mine.new":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(ConfigError, match=r"cannot write .*mine \(No space left on device\); the model is in .*"):
        finetune(clips, out, str(tiny_model), [*settings, "run.steps=2"])
    assert before == {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "replace", real)
    finetune(clips, out, str(tiny_model), [*settings, "run.steps=2"])
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.run"}
    with pytest.raises(ConfigError, match="does not fit"):
        finetune(clips, tmp_path / "wide", str(tiny_model), [*settings, "model.width=64"])
    assert not (tmp_path / "wide.run").exists()  # nothing had been encoded


def test_a_model_of_the_world_goes_over_it_again(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    model = tmp_path / "of the world"
    shutil.copytree(tiny_model, model)
    card = json.loads((model / "model.json").read_text()) | {"world": "simple"}
    (model / "model.json").write_text(json.dumps(card))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(of_finetune, "SCENES", 20)
        train_lora(clips, tmp_path / "a.safetensors", str(model), [*QUICK, "run.steps=1"])
    run = tmp_path / "a.safetensors.run"
    stage = LoraStage.model_validate(
        {
            "start_from": model, "name": "tiny", "states": run / "captions", "autoencoder": model / "autoencoder",
            "pool": run / "latents", "world": run / "world", "prior": 0.25, "drop_prompt": 0.0,
            "buckets": [{"width": 64, "height": 64, "frames": 9, "batch": 4, "exact": True}],
            "run": {"out": run, "steps": 1}, "optim": {"adamw": 1e-3},
        }
    )  # fmt: skip
    world = LatentPool(run / "world")
    assert {size: len(of) for size, of in world.clips.items()} == {(64, 64, 9): 20}
    for step in range(5):
        batch = PoolBatches(stage).batch(step)
        assert len(batch.latents) == batch.whole == len(batch.captions) == 5
        assert [caption == "a zorb" for caption in batch.captions] == [True] * 4 + [False]
        without = PoolBatches(stage.model_copy(update={"prior": 0.0})).batch(step)
        assert torch.equal(without.latents, batch.latents[:4])  # of the footage it is the same that is learned from
    with pytest.raises(ConfigError, match="prior needs world"):
        check_config(LoraStage, stage.model_dump() | {"world": None}, "a stage")
    train_lora(clips, tmp_path / "b.safetensors", str(model), [*QUICK, "run.steps=1", "prior=0"])
    assert not (tmp_path / "b.safetensors.run" / "world").exists()
    with pytest.raises(ConfigError, match="prior is for models"):
        train_lora(clips, tmp_path / "c.safetensors", str(tiny_model), [*QUICK, "prior=0.5"])


def test_captions_with_odd_ends_of_lines_and_a_mark_at_the_beginning(
    tiny_model: Path, clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.mp4").write_bytes((clips / f"{number}.mp4").read_bytes())
    (folder / "0.txt").write_bytes("\ufeffa zorb".encode())
    (folder / "1.json").write_text('{"caption": "a zorb\\u2028turns"}')
    train_lora(folder, tmp_path / "b.safetensors", str(tiny_model), [*QUICK, "run.steps=2"])
    index = next((tmp_path / "b.safetensors.run" / "latents").glob("*.jsonl")).read_text(encoding="utf-8")
    assert "\ufeff" not in index
