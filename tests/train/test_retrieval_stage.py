"""Clips beside a transformer's text: neighbours are alike, training learns from them, and the whole way to a video."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.create import Canvas, Cue, load
from yozora.create.beside import Beside
from yozora.errors import CanvasError, ConfigError
from yozora.models.folder import save_module
from yozora.models.registry import RETRIEVAL
from yozora.models.retrieval import RetrievalAdapter, RetrievalConfig
from yozora.train.config import LatentsStage
from yozora.train.latents import build_pool
from yozora.train.retrieval import KINDS, RetrievalStage, RetrievalTask, neighbours, train_retrieval
from yozora.world.describe import FACTS

CANVAS = Canvas(64, 64, 9, 8.0, (Cue(0, "a red ball"),))


@pytest.fixture(scope="module")
def pool(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = {
        "autoencoder": tiny_model / "autoencoder",
        "mix": "simple",
        "buckets": [
            {"width": 64, "height": 64, "frames": 9, "clips": 40},
            {"width": 64, "height": 64, "frames": 1, "clips": 8},
        ],
        "run": {"out": tmp_path_factory.mktemp("pool"), "device": "cpu", "precision": "fp32", "workers": 0},
    }
    return build_pool(LatentsStage.model_validate(stage))


def stage(pool: Path, model: Path, out: Path, **settings: object) -> RetrievalStage:
    asked: dict[str, object] = {
        "run": {"out": out, "steps": 6, "device": "cpu", "precision": "fp32", "workers": 0, "sample_every": 6},
        "optim": {"adamw": 0.01, "warmup": 0},
        "pool": pool,
        "start_from": model,
        "autoencoder": model / "autoencoder",
        "buckets": [{"width": 64, "height": 64, "frames": 5, "batch": 4}],
        "model": {"rank": 2, "moments": 2},
    }
    return RetrievalStage.model_validate(asked | settings)


def seen(shape: str, colour: str, motion: str = "still", ground: str = "grass") -> dict[str, str]:
    told = {"count": "1", "shape": shape, "colour": colour, "motion": motion, "ground": ground}
    return dict.fromkeys(FACTS, "none") | told


def test_neighbours_show_the_same_and_the_most_else_alike() -> None:
    spinning = [seen("cube", "red", "spin", ground) for ground in ("sand", "sand", "grass", "grass", "snow")]
    known = [*spinning, *[seen("cube", "red")] * 2, seen("cube", "blue"), seen("cone", "red")]
    found = [each.tolist() for each in neighbours(known)]
    assert found[0] == [1, 2, 3, 4]  # those that spin, the one on sand first
    assert found[5] == [6, 2, 3, 0]  # then what is on grass, whatever it does
    assert set(found[7]) < set(range(7)) and len(found[7]) == 4  # of no other blue cube: cubes
    assert found[8] == []


def test_lessons_are_the_same_again_and_keep_some_clips_apart(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    task = RetrievalTask(stage(pool, tiny_model, tmp_path, drop_clips=0.5))
    one, again = task.source.lesson(3), task.source.lesson(3)
    assert torch.equal(one.clips, again.clips) and torch.equal(one.shown, again.shown)
    assert one.own.latents.shape == (4, 4, 2, 4, 4) and one.clips.shape == (4, 2, 4, 2, 4, 4)
    shown = torch.cat([task.source.lesson(n).shown for n in range(40)]).float()
    assert 0.35 < shown.mean() < 0.65
    learned = {tuple(x.flatten()[:8].tolist()) for n in range(40) for x in task.source.lesson(n).own.latents}
    apart = {tuple(x.flatten()[:8].tolist()) for n in range(40) for x in task.source.lesson(n, "right").own.latents}
    assert not learned & apart and len(apart) == 3  # of forty clips
    assert all(task.source.lesson(n, "right").shown.all() for n in range(3))
    assert not task.source.lesson(0, "none").shown.any()


def test_pictures_have_neighbours_of_any_length(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    buckets = [{"width": 64, "height": 64, "frames": 1, "batch": 6}]
    task = RetrievalTask(stage(pool, tiny_model, tmp_path, buckets=buckets))
    lessons = [task.source.lesson(n) for n in range(3)]
    assert all(each.own.latents.shape[2] == 1 and each.clips.shape[3] == 2 for each in lessons)
    few = [{"width": 64, "height": 64, "frames": 9, "batch": 2, "exact": True}]
    for path in pool.glob("64x64x9*.jsonl"):
        (tmp_path / "few").mkdir()
        shutil.copy(path.with_suffix(".safetensors"), tmp_path / "few")
        (tmp_path / "few" / path.name).write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(ConfigError, match="too few clips of 64x64"):
        RetrievalTask(stage(tmp_path / "few", tiny_model, tmp_path, buckets=few)).source.lesson(0)


def test_at_first_clips_are_shown_themselves(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    buckets = [{"width": 64, "height": 64, "frames": 9, "batch": 4, "exact": True}]
    task = RetrievalTask(stage(pool, tiny_model, tmp_path, buckets=buckets, own=1.0))

    def themselves(step: int, kind: str = "") -> list[bool]:
        lesson = task.source.lesson(step, kind)
        ends = lesson.own.latents[:, None, :, [0, -1]]
        return (lesson.clips == ends).flatten(1).all(1).tolist()

    assert all(themselves(0)) and not any(themselves(3)) and not any(themselves(0, "right"))


def test_only_the_adapter_learns_and_a_model_with_it_makes_videos(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    task = RetrievalTask(stage(pool, tiny_model, tmp_path))
    loss, _ = task.loss(task.source.lesson(0), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(parameter.grad is None for parameter in task.base.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in task.model.parameters())
    made = train_retrieval(stage(pool, tiny_model, tmp_path))
    lines = (tmp_path / "samples" / "0000006.txt").read_text().splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == list(KINDS)

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    shutil.copytree(made / RETRIEVAL, folder / RETRIEVAL)
    generator = load(folder, "cpu", torch.float32)
    latents = [torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    (alone,) = generator.run_many(CANVAS, [1], steps=3)
    for guidance in (1.0, 2.0):
        (beside,) = generator.run_many(CANVAS, [1], steps=3, beside=Beside(latents, guidance, ("a", "b")))
        assert not np.array_equal(alone.frames, beside.frames)
        assert beside.recipe is not None
        assert beside.recipe.library == {"beside": ["a", "b"], "retrieval_guidance": guidance}
    both = generator.run_many(CANVAS, [1, 2], steps=3, beside=Beside(latents, 2.0))
    assert np.array_equal(both[0].frames, beside.frames)  # as alone, so in a batch


def test_what_cannot_be_shown_is_said(tiny_model: Path, tmp_path: Path) -> None:
    latents = torch.zeros(4, 3, 4, 4)
    with pytest.raises(CanvasError, match="not trained to be shown clips"):
        load(tiny_model, "cpu", torch.float32).run_many(CANVAS, [0], beside=Beside([latents]))
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    generator = load(tiny_model, "cpu", torch.float32)
    config = RetrievalConfig(rank=2, clips=1, moments=1, base=generator.bundle.transformer.config)
    save_module(RetrievalAdapter(config), folder / RETRIEVAL)
    generator = load(folder, "cpu", torch.float32)
    for beside, reason in (
        (Beside([latents, latents]), "can be shown 1 clips, not 2"),
        (Beside([latents[:2]]), "have 2 channels, the model's 4"),
    ):
        with pytest.raises(CanvasError, match=reason):
            generator.run_many(CANVAS, [0], beside=beside)
    for shapes, guidance, reason in (
        ([latents, latents[:, :1]], 1.0, "of one shape"),
        ([latents], 0.0, "no clip is shown"),
        ([latents], 21.0, "from 0"),
        ([], 1.0, "no clip is shown"),
    ):
        with pytest.raises(CanvasError, match=reason):
            Beside(shapes, guidance)


def test_settings_that_do_not_fit(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packed, layout and prior"):
        stage(pool, tiny_model, tmp_path, layout=0.5)
    footage = tmp_path / "footage"
    shutil.copytree(pool, footage)
    for index in footage.glob("*.jsonl"):
        index.write_text('{"captions": ["a ball"], "start": 0}\n' * 40)
    with pytest.raises(ConfigError, match="needs a pool of rendered clips"):
        RetrievalTask(stage(footage, tiny_model, tmp_path)).source.lesson(0)
