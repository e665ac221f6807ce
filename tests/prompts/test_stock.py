"""What a library is filled with: folders, shards, pools of latents, scenes; interrupted and gone on with."""

import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.prompts import stock
from yozora.prompts.library import Library
from yozora.prompts.retrieval import search_by_facts
from yozora.prompts.stock import Coder, add_footage, add_pool, add_world, is_pool, library_for, load_coder
from yozora.train.config import LatentsStage
from yozora.train.latents import build_pool

CAPTIONS = {"a": "A red ball rolls to the left.", "b": "A blue cube spins on the sand.", "c": "Two green cones."}


@pytest.fixture(scope="module")
def coder(tiny_model: Path) -> Coder:
    return load_coder(tiny_model, "cpu")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips with captions; the first is two pieces long."""
    folder = tmp_path / "clips"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, caption in CAPTIONS.items():
        count = 18 if name == "a" else 9
        Clip(random.integers(0, 255, (count, 64, 64, 3), np.uint8), 8.0).write(folder / f"{name}.mp4")
        (folder / f"{name}.txt").write_text(caption)
    return folder


@pytest.fixture
def library(tmp_path: Path, coder: Coder) -> Library:
    return library_for(tmp_path / "library", coder)


def test_a_folder_is_put_in_with_its_captions_and_facts(clips: Path, library: Library, coder: Coder) -> None:
    added = list(add_footage(library, coder, clips))
    assert [(Path(one.origin).name, one.clips) for one in added] == [("a.mp4", 2), ("b.mp4", 1), ("c.mp4", 1)]
    found = library.search(CAPTIONS["a"], 4)
    assert [Path(match.source).name for match in found[:2]] == ["a.mp4@0", "a.mp4@1.125"]
    assert found[0].facts == {
        "count": "1",
        "shape": "sphere",
        "colour": "red",
        "motion": "roll",
        "direction": "left",
    }
    assert next(match for match in found if "c.mp4" in match.source).facts["count"] == "2"
    frames = Clip.read(clips / "b.mp4").frames
    stored = library.latents(next(match.source for match in found if "b.mp4" in match.source))
    assert np.array_equal(stored.numpy(), coder.encode(frames).numpy())


def test_what_a_text_states_comes_before_what_sounds_alike(clips: Path, library: Library, coder: Coder) -> None:
    (clips / "c.txt").write_text("A ball, red all over, rolls from the right-hand side of the scene over to the left.")
    list(add_footage(library, coder, clips))
    asked = "A red ball rolls to the left."
    found = [Path(match.source).name for match in search_by_facts(library, asked, 4)]
    assert sorted(found[:3]) == ["a.mp4@0", "a.mp4@1.125", "c.mp4@0"] and found[3] == "b.mp4@0"
    assert Path(search_by_facts(library, "A blue cube spins.", 2)[0].source).name == "b.mp4@0"
    assert len(search_by_facts(library, "spinning", 9)) == 4


def test_what_was_interrupted_goes_on_and_what_is_there_stays(
    clips: Path, library: Library, coder: Coder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "BATCH", 1)
    list(islice(add_footage(library, coder, clips), 2))  # killed while it works on the second
    assert len(library) == 2
    assert [one.clips for one in add_footage(library, coder, clips)] == [0, 1, 1]
    assert len(library) == 4
    assert [one.clips for one in add_footage(library, coder, clips)] == [0, 0, 0]
    (clips / "a.txt").write_text("A white ring.")  # what is said has changed
    assert [one.clips for one in add_footage(library, coder, clips)] == [2, 0, 0]
    assert len(library) == 4 and library.search("A white ring.", 1)[0].caption == "A white ring."


def test_what_cannot_be_read_is_left_out_and_named(clips: Path, library: Library, coder: Coder) -> None:
    (clips / "b.mp4").write_bytes(b"no video")
    reasons = {Path(one.origin).name: one.reason for one in add_footage(library, coder, clips)}
    assert reasons["b.mp4"] and not reasons["a.mp4"] and len(library) == 3
    (clips / "b.txt").unlink()
    with pytest.raises(ConfigError, match=r"nothing is said of b\.mp4"):
        list(add_footage(library, coder, clips))
    with pytest.raises(ConfigError, match=r"no folder or \.tar"):
        list(add_footage(library, coder, clips / "nowhere"))


def test_shards_are_put_in_once(clips: Path, library: Library, coder: Coder, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for path in sorted(clips.iterdir()):
            tar.add(path, path.name)
    assert [one.clips for one in add_footage(library, coder, shard)] == [2, 1, 1]
    assert [one.clips for one in add_footage(library, coder, shard)] == [0, 0, 0]
    assert {Path(match.source).name for match in library.search("x", 9)} >= {"shard.tar:b@0", "shard.tar:c@0"}


def test_scenes_of_the_world_with_all_that_shows(library: Library, coder: Coder) -> None:
    assert [one.clips for one in add_world(library, coder, 2, seed=5)] == [1, 1]
    assert [one.clips for one in add_world(library, coder, 3, seed=5)] == [0, 0, 1]
    facts = library.search("a thing", 3)[0].facts
    assert {"count", "shape", "ground", "camera", "style"} <= facts.keys() and "none" not in facts.values()
    for count, seed in ((0, 0), (1, -1), (1, 2**40)):
        with pytest.raises(ConfigError, match="cannot be added"):
            list(add_world(library, coder, count, seed=seed))
    with pytest.raises(ConfigError, match="unknown mix"):
        list(add_world(library, coder, 1, "dreams"))


def test_a_pool_of_latents(tiny_model: Path, library: Library, coder: Coder, tmp_path: Path) -> None:
    bucket = {"width": 64, "height": 64, "frames": 9, "clips": 2}
    run = {"out": tmp_path / "pool", "device": "cpu", "workers": 0, "seed": 1, "precision": "fp32"}
    stage = {"run": run, "autoencoder": tiny_model / "autoencoder", "mix": "simple", "fps": 8.0, "buckets": [bucket]}
    pool = build_pool(LatentsStage.model_validate(stage))
    assert is_pool(pool) and not is_pool(tmp_path)
    assert [one.clips for one in add_pool(library, coder, pool)] == [2]
    assert [one.clips for one in add_pool(library, coder, pool)] == [0]
    manifest = pool / "pool.json"
    manifest.write_text(manifest.read_text().replace(coder.version, "another"))
    again = library_for(tmp_path / "again", coder)
    assert [one.clips for one in add_pool(again, coder, pool)] == [2]  # what it made is the same all the same
    other = Coder("other", "other", coder.native, _blurred(tiny_model), coder.device)
    with pytest.raises(ConfigError, match="another autoencoder than that of other"):
        list(add_pool(library_for(tmp_path / "third", other), other, pool))


def _blurred(folder: Path):
    """The autoencoder with other weights."""
    made = load_coder(folder, "cpu").autoencoder
    for parameter in made.parameters():
        parameter.data.mul_(0.7)
    return made


def test_a_library_of_another_version_takes_nothing(library: Library, coder: Coder) -> None:
    newer = Coder(coder.model, "newer", coder.native, coder.autoencoder, coder.device)
    with pytest.raises(ConfigError, match="another version of an autoencoder"):
        library_for(library.folder, newer)
