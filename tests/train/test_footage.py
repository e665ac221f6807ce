"""Footage: which files are found, what is said of them, how they are cut, and that one bad file spoils nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.train import footage as footage_of
from yozora.train import latents
from yozora.train.config import Bucket, Footage, Job, LatentsStage
from yozora.train.data import LatentPool, to_signed
from yozora.train.footage import Item, Piece, Skipped, cut, footage_digest, list_folder, size_of, units_of
from yozora.train.latents import build_pool


def write(path: Path, frames: int = 9, width: int = 64, height: int = 48, fps: float = 12.0, said: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, frames * height * width * 3).reshape(frames, height, width, 3).astype(np.uint8)
    Clip(ramp, fps).write(path)
    if said:
        path.with_suffix(".txt").write_text(said)
    return path


def footage(path: Path, **settings: object) -> Footage:
    return Footage.model_validate({"path": path, "frames": 9, "area": 32 * 32} | settings)


def stage(tmp_path: Path, model: Path, said: Footage, **settings: object) -> LatentsStage:
    job = Job(out=tmp_path / "pool", device="cpu", precision="fp32", workers=0)
    return LatentsStage(run=job, autoencoder=model / "autoencoder", footage=said, **settings)  # type: ignore[arg-type]


# ---- what is found and what is said of it ----------------------------------------------------------------------------


def test_captions_beside_a_clip_in_json_and_in_a_list(tmp_path: Path) -> None:
    write(tmp_path / "b.mp4", said="a dog runs\n\n  a brown dog  \n")
    write(tmp_path / "a" / "c.png", frames=1)
    (tmp_path / "a" / "c.json").write_text(json.dumps({"captions": ["one", "two", 3], "other": "no"}))
    write(tmp_path / "d.webp")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "d.webp", "text": "a ramp"}\n\n')
    write(tmp_path / ".hidden" / "e.mp4")
    (tmp_path / "notes.md").write_text("nothing")
    found = {item.name: item.captions for item in list_folder(tmp_path)}
    assert found == {"a/c.png": ("one", "two"), "b.mp4": ("a dog runs", "a brown dog"), "d.webp": ("a ramp",)}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"captions": "a dog runs"}, ("a dog runs",)),  # not its letters
        ({"caption": ["one", "two"]}, ("one", "two")),
        ({"captions": 5, "text": "three"}, ("three",)),
        ({"captions": None, "caption": {"en": "no"}, "short": "four"}, ("four",)),
    ],
)
def test_captions_of_other_kinds(tmp_path: Path, entry: dict[str, Any], said: tuple[str, ...]) -> None:
    write(tmp_path / "a.mp4")
    (tmp_path / "a.json").write_text(json.dumps(entry))
    assert [item.captions for item in list_folder(tmp_path)] == [said]


def test_what_yozora_world_sample_writes_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "000.mp4")
    line = {"file": "000.mp4", "seed": 1, "language": "en", "short": "s", "dense": "d", "timed": "t", "held_out": False}
    (tmp_path / "captions.jsonl").write_text(json.dumps(line) + "\n")
    write(tmp_path / "sheet.png", frames=1)
    write(tmp_path / "extra.png", frames=1, said="said beside it")
    assert [item.captions for item in list_folder(tmp_path, "x")] == [("s", "d", "t"), ("said beside it",)]
    assert "left out: sheet.png" in capsys.readouterr().out


def test_a_missing_caption_is_named_and_one_for_all_helps(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", said="a")
    write(tmp_path / "b.mp4")
    write(tmp_path / "c.mp4").with_suffix(".txt").write_text("  \n")
    with pytest.raises(ConfigError, match=r"nothing is said of b\.mp4 and 1 more: write a caption into b\.txt"):
        list_folder(tmp_path)
    assert [item.captions for item in list_folder(tmp_path, "x")] == [("a",), ("x",), ("x",)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.jsonl", "{", r"captions\.jsonl, line 1: not a JSON object"),
        ("captions.jsonl", '\n{"text": "a"}', r"line 2: there is no file or file_name"),
        ("a.json", "[1]", r"a\.json: not a JSON object"),
        ("a.txt", b"\xff\xfe\x00", r"a\.txt cannot be read as text"),
        ("a.txt", "short\n" + "word " * 4000, r"a\.txt: a caption of 19,999 letters: give one of at most 10,000"),
        ("a.json", json.dumps({"captions": ["x" * 10_001]}), r"a\.json: a caption of 10,001 letters"),
        ("captions.jsonl", json.dumps({"file": "a.mp4", "text": "x" * 10_001}), r"line 1: a caption of 10,001 letters"),
    ],
)
def test_captions_that_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    write(tmp_path / "a.mp4")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        list_folder(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no clip or picture in"):
        units_of(footage(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no folder or \.tar of clips"):
        units_of(footage(tmp_path / "gone"))


# ---- cutting ---------------------------------------------------------------------------------------------------------


def test_a_long_clip_is_cut_into_pieces_and_the_last_fits_the_grid(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames=32, said="x")
    pieces = cut(list_folder(tmp_path)[0], footage(tmp_path))
    assert isinstance(pieces, list)
    assert [piece.frames.shape[1] for piece in pieces] == [9, 9, 9, 5]  # 32 = 27 + 5
    assert [piece.line["start"] for piece in pieces] == [0, 0.75, 1.5, 2.25]
    whole = torch.cat([piece.frames for piece in pieces], dim=1).float()
    assert (whole.mean((0, 2, 3)).diff() > 0).all()  # in order of time, none twice
    few = cut(list_folder(tmp_path)[0], footage(tmp_path, pieces=2))
    assert isinstance(few, list) and len(few) == 2


@pytest.mark.parametrize(("frames", "fps", "wanted"), [(1, 12, [1]), (3, 12, [1]), (18, 24, [9]), (5, 6, [9])])
def test_short_clips_and_other_rates(tmp_path: Path, frames: int, fps: float, wanted: list[int]) -> None:
    path = tmp_path / ("a.mp4" if frames > 1 else "a.png")
    write(path, frames=frames, fps=fps, said="x")
    pieces = cut(list_folder(tmp_path)[0], footage(tmp_path))
    assert isinstance(pieces, list) and [piece.frames.shape[1] for piece in pieces] == wanted


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(32 * 32, 512 * 512))
def test_a_native_size_is_of_the_clips_shape_and_area(width: int, height: int, area: int) -> None:
    made = size_of((width, height), footage(Path(), area=area))
    assert made[0] % 32 == made[1] % 32 == 0 and min(made) >= 32
    if max(width, height) <= 8 * min(width, height) and min(made) >= 128:
        assert 0.7 <= (made[0] / made[1]) / (width / height) <= 1.4
    assert made[0] * made[1] <= max(8 * 32 * 32, 1.6 * min(area, max(32 * 32, width * height)))


def test_of_given_sizes_the_nearest_in_shape() -> None:
    sizes = ((64, 64), (96, 64), (64, 96))
    said = footage(Path(), sizes=sizes)
    assert [size_of(size, said) for size in ((10, 10), (1920, 1080), (1080, 1920))] == list(sizes)


# ---- the pool --------------------------------------------------------------------------------------------------------


def test_a_pool_of_a_folder_with_a_corrupt_clip(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    write(folder / "a.mp4", frames=20, said="one\ntwo")
    broken = write(folder / "b.mp4", said="three")
    broken.write_bytes(broken.read_bytes()[:200])
    write(folder / "c.png", frames=1, said="four")
    said = footage(folder, sizes=((64, 32), (32, 32)))
    config = stage(tmp_path, tiny_model, said)
    pool = LatentPool(build_pool(config))
    assert "skipped b.mp4" in capsys.readouterr().out
    report = json.loads((tmp_path / "pool" / "unit-00000.json").read_text())
    assert report["clips"] == 3 and [each["name"] for each in report["skipped"]] == ["b.mp4"]
    assert {key: len(clips) for key, clips in pool.clips.items()} == {(32, 32, 9): 2, (32, 32, 1): 1}
    drawn = pool.draw(Bucket(width=32, height=32, frames=9, batch=1), np.random.default_rng(0))
    assert drawn.scene is None and drawn.bodies is None and drawn.captions == ("one", "two")
    item = next(item for item in list_folder(folder) if item.name == "a.mp4")
    pieces = cut(item, said)
    assert isinstance(pieces, list)
    autoencoder = load_module(Autoencoder, tiny_model / "autoencoder")
    with torch.no_grad():
        wanted = autoencoder.encode(to_signed(pieces[0].frames[None]))[0]
    row = next(clip for clip in pool.clips[32, 32, 9] if json.loads(clip.line)["start"] == 0)
    found = pool._read(row.file)["latents"][row.row].float()
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0.01)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    build_pool(config)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    write(folder / "d.png", frames=1, said="five")
    with pytest.raises(ConfigError, match="other settings, footage"):
        build_pool(config)


@pytest.mark.parametrize("kind", ["folder", "shard"])
def test_encoding_that_is_broken_off_goes_on_at_the_file_that_it_was_at(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "clips"
    for number in range(5):
        write(clips / f"{number}.mp4", frames=9 if number % 2 else 5, said=f"clip {number}")
    (clips / "3.mp4").write_bytes(b"broken")
    if kind == "shard":
        with tarfile.open(tmp_path / "clips.tar", "w") as tar:
            for path in sorted(clips.iterdir()):
                tar.add(path, path.name)
        clips = tmp_path / "clips.tar"
    whole = LatentPool(build_pool(stage(tmp_path / "whole", tiny_model, footage(clips))))
    read: list[str] = []

    def until_the_fourth(item: Item, said: Footage) -> list[Piece] | Skipped:
        read.append(item.name.removeprefix("clips.tar:").removesuffix(".mp4"))
        if read == ["0", "1", "2"]:
            raise KeyboardInterrupt
        return cut(item, said)

    for module in (latents, footage_of):
        monkeypatch.setattr(module, "cut", until_the_fourth)
    monkeypatch.setattr(latents, "KEEP_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        build_pool(stage(tmp_path, tiny_model, footage(clips)))
    (stray,) = (tmp_path / "pool").glob("*9-u00000-00001.jsonl")
    stray.with_name(stray.name.replace("00001.", "00002.")).write_text("{}\n")  # of a part that was being written
    broken_off = LatentPool(build_pool(stage(tmp_path, tiny_model, footage(clips))))
    assert read == ["0", "1", "2", "2", "3", "4"]
    assert {size: [clip.line for clip in of] for size, of in broken_off.clips.items()} == {
        size: [clip.line for clip in of] for size, of in whole.clips.items()
    }
    said = json.loads((tmp_path / "pool" / "unit-00000.json").read_text())
    assert (said["done"], said["files"], said["clips"], len(said["skipped"])) == (True, 5, 4, 1)


def test_when_nothing_can_be_read_that_is_said(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(ConfigError, match="1 files were skipped"):
        build_pool(stage(tmp_path, tiny_model, footage(tmp_path, caption="x")))


def test_shards(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, still = write(tmp_path / "src" / "a.mp4").read_bytes(), write(tmp_path / "src" / "b.png", 1).read_bytes()
    members = {
        "000.mp4": clip, "000.txt": b"a ramp", "001.png": still, "001.json": b'{"caption": "a still"}',
        "002.mp4": b"broken", "002.txt": b"x", "003.txt": b"no clip", "004.png": still,
    }  # fmt: skip
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    (folder / "1.tar").write_bytes((folder / "1.tar").read_bytes()[: 512 + -(-len(clip) // 512) * 512 + 1024 + 700])
    (folder / "2.tar").write_bytes(b"no archive")
    pool = LatentPool(build_pool(stage(tmp_path, tiny_model, footage(folder, sizes=((32, 32),)))))
    out = capsys.readouterr().out
    assert "skipped 2.tar: file could not be opened successfully\nfootage  3/3" in out
    for name in ("0.tar:002: 0.tar:002 is not a video", "0.tar:003: no clip", "0.tar:004: nothing is said", "1.tar: "):
        assert f"skipped {name}" in out
    assert sorted(pool.captions()) == [("a ramp",), ("a ramp",), ("a still",)]
    named = footage(folder / "0.tar", sizes=((32, 32),))
    again = LatentPool(build_pool(stage(tmp_path / "other", tiny_model, named)))
    assert sum(map(len, again.clips.values())) == 2


def test_damage_within_a_shard_is_named(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = write(tmp_path / "src" / "b.png", 1).read_bytes()
    shard = tmp_path / "deep" / "er" / "0.tar"
    shard.parent.mkdir(parents=True)
    with tarfile.open(shard, "w") as tar:
        for number in range(3):
            for name, content in ((f"{number}.png", still), (f"{number}.txt", b"a still")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    content = bytearray(shard.read_bytes())
    second = content.find(b"1.png\0")
    content[second : second + 512] = b"\xaa" * 512
    shard.write_bytes(content)
    pool = LatentPool(build_pool(stage(tmp_path, tiny_model, footage(tmp_path / "deep", sizes=((32, 32),)))))
    assert "skipped 0.tar: it is damaged after 0" in capsys.readouterr().out
    assert len(list(pool.captions())) == 1


def test_a_file_whose_name_is_no_text(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    path = write(folder / "a.png", frames=1)
    path.rename(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    pool = build_pool(stage(tmp_path, tiny_model, footage(folder, caption="x", sizes=((32, 32),))))
    line = json.loads(next(pool.glob("*.jsonl")).read_text(encoding="utf-8"))
    assert line["name"] == "\\xff.png"


def test_an_exact_bucket_draws_clips_of_its_own_length_only(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    write(folder / "a.mp4", frames=9, said="moves")
    write(folder / "b.png", frames=1, said="stands")
    pool = LatentPool(build_pool(stage(tmp_path, tiny_model, footage(folder, sizes=((32, 32),)))))
    random = np.random.default_rng(0)
    assert len(pool.buckets()) == 2
    for bucket, wanted in zip(pool.buckets(), ("stands", "moves"), strict=True):
        assert {pool.draw(bucket, random).captions for _ in range(20)} == {(wanted,)}
    cut = Bucket(width=32, height=32, frames=1, batch=1)
    assert {pool.draw(cut, random).captions for _ in range(20)} == {("stands",), ("moves",)}
    with pytest.raises(ConfigError, match="has no clips of 32x32, 5 frames"):
        pool.draw(Bucket(width=32, height=32, frames=5, batch=1, exact=True), random)


def test_an_index_that_is_damaged_is_named(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "clips" / "a.png", frames=1, said="stands")
    out = build_pool(stage(tmp_path, tiny_model, footage(tmp_path / "clips", sizes=((32, 32),))))
    index, bucket = next(out.glob("*.jsonl")), Bucket(width=32, height=32, frames=1, batch=1)
    whole = index.read_text()
    for damaged, line in ((whole[:20], 1), (whole + whole, 2)):
        index.write_text(damaged)
        with pytest.raises(ConfigError, match=rf"\.jsonl is damaged at line {line}: make the pool again"):
            for number in range(20):
                LatentPool(out).draw(bucket, np.random.default_rng(number))


def test_a_clip_that_is_replaced_by_one_of_equal_name_and_size_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    clip = write(tmp_path / "clips" / "a.png", frames=1, said="stands")
    picture = clip.read_bytes()
    clip.write_bytes(picture + b"1")  # what comes after a picture's end is no part of it
    config = stage(tmp_path, tiny_model, footage(clip.parent, sizes=((32, 32),)))
    build_pool(config)
    clip.write_bytes(picture + b"1")  # copied to and fro it is the same
    build_pool(config)
    clip.write_bytes(picture + b"2")
    with pytest.raises(ConfigError, match="other settings, footage"):
        build_pool(config)
    build_pool(config, resume=False)


@pytest.mark.parametrize("whole", [True, False], ids=["small", "large"])
def test_other_rows_of_a_picture_whose_size_says_nothing_are_noticed(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a BMP every size, and most of its bytes, stay the same whatever is drawn."""
    if not whole:
        monkeypatch.setattr(footage_of, "WHOLE", 2**18)
    clip = tmp_path / "clips" / "a.bmp"
    clip.parent.mkdir()
    drawn = np.zeros((600, 800, 3), np.uint8)
    Image.fromarray(drawn).save(clip)
    asked, size = footage(clip.parent, caption="stands"), clip.stat().st_size
    before = footage_digest(asked)
    drawn[120:200] = 255  # neither at the start, nor in the middle, nor at the end
    Image.fromarray(drawn).save(clip)
    assert clip.stat().st_size == size and footage_digest(asked) != before
    copied = shutil.copytree(clip.parent, tmp_path / "copy")
    os.utime(copied / "a.bmp", (1, 1))
    assert footage_digest(footage(copied, caption="stands")) == footage_digest(asked)


@pytest.mark.parametrize("written", ["{", "[]", '{"clips": "many"}', '{"parts": -1, "done": false}', '{"done": 1}'])
def test_a_report_that_somebody_has_written_into_is_named(written: str, tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "clips" / "a.png", frames=1, said="stands")
    config = stage(tmp_path, tiny_model, footage(tmp_path / "clips", sizes=((32, 32),)))
    report = build_pool(config) / "unit-00000.json"
    report.write_text(written)
    with pytest.raises(ConfigError, match=r"unit-00000\.json is damaged: make the pool again \(--no-resume\)"):
        build_pool(config)
    build_pool(config, resume=False)
    assert json.loads(report.read_text())["clips"] == 1


def test_latents_that_are_not_finite_are_not_kept(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "clips" / "a.png", frames=1, said="stands")
    autoencoder = load_module(Autoencoder, tiny_model / "autoencoder")
    for parameter in autoencoder.encoder.parameters():
        parameter.data.fill_(torch.nan)
    save_module(autoencoder, tmp_path / "model" / "autoencoder")
    with pytest.raises(ConfigError, match="the autoencoder gave numbers that are not finite"):
        build_pool(stage(tmp_path, tmp_path / "model", footage(tmp_path / "clips", sizes=((32, 32),))))
    assert not list((tmp_path / "pool").glob("*.safetensors"))


def test_piece_and_skipped_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    result = cut(list_folder(tmp_path, "x")[0], footage(tmp_path))
    assert isinstance(result, Skipped) and result.name == "a.png" and result.reason
    write(tmp_path / "a.png", frames=1)
    result = cut(list_folder(tmp_path, "x")[0], footage(tmp_path))
    assert isinstance(result, list) and isinstance(result[0], Piece)
