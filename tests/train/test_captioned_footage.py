"""Fine-tuning on clips of which nobody has said anything: a captioner does, in the same command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_finetune import QUICK

from yozora.captions import Caption
from yozora.captions.files import caption_silent
from yozora.cli import main
from yozora.clip import Clip
from yozora.errors import ConfigError
from yozora.train.data import LatentPool
from yozora.train.finetune import finetune, train_lora
from yozora.train.footage import uncaptioned
from yozora.world import MIXES, render, sample_scene


class Counting:
    """A captioner that says how many frames there are, and which clips it was shown."""

    name, language = "counting", "en"

    def __init__(self) -> None:
        self.shown: list[int] = []

    def caption(self, clip: Clip) -> Caption:
        self.shown.append(len(clip.frames))
        return Caption(short=f"{len(clip.frames)} frames", dense=f"A grey clip of {len(clip.frames)} frames.")

    def describe(self, folder: Path, output: Path) -> None:
        for _ in caption_silent(folder, self, output):
            pass


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """One with a caption, two without, of which one lies deeper, and a broken one."""
    folder = tmp_path / "clips"
    for name, frames in (("a.mp4", 9), ("b.mp4", 5), ("deep/b.mp4", 9)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Clip(np.full((frames, 64, 64, 3), 99, np.uint8), 8.0).write(folder / name)
    (folder / "a.txt").write_text("said by hand")
    (folder / "c.mp4").write_bytes(b"no video")
    return folder


def test_what_has_no_caption_gets_one_and_what_is_broken_is_left_out(
    tiny_model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(clips.rglob("*"))
    captioner, out, settings = Counting(), tmp_path / "a.safetensors", [*QUICK, "run.steps=1"]
    train_lora(clips, out, str(tiny_model), settings, describe=captioner.describe)
    assert captioner.shown == [5, 9]
    said = set(LatentPool(tmp_path / "a.safetensors.run" / "latents").captions())
    assert said == {("said by hand",)} | {(f"{n} frames", f"A grey clip of {n} frames.") for n in (5, 9)}
    assert capsys.readouterr().out.count("left out: c.mp4, of which the captioner has said nothing") == 1
    assert sorted(clips.rglob("*")) == before  # nothing is written among the clips
    lines = (tmp_path / "a.safetensors.run" / "captioned.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["b.mp4", "deep/b.mp4"]
    train_lora(clips, out, str(tiny_model), [*settings, "run.steps=2"], describe=captioner.describe)
    assert captioner.shown == [5, 9]  # which are listed
    made = finetune(clips, tmp_path / "mine", str(tiny_model), settings, describe=captioner.describe)
    assert (made / "model.json").exists() and (tmp_path / "mine.run" / "captioned.jsonl").exists()


def test_settings_come_before_captions_and_shards_have_their_own(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    captioner, out = Counting(), tmp_path / "a.safetensors"
    with pytest.raises(ConfigError, match=r"unknown setting run\.step; is steps meant"):
        train_lora(clips, out, str(tiny_model), [*QUICK, "run.step=1"], describe=captioner.describe)
    assert not captioner.shown and not (tmp_path / "a.safetensors.run").exists()
    (tmp_path / "a.tar").touch()
    with pytest.raises(ConfigError, match=r"a captioner is for folders of clips, and .*a\.tar is none"):
        train_lora(tmp_path / "a.tar", out, str(tiny_model), QUICK, describe=captioner.describe)
    assert [item.name for item in uncaptioned(clips)] == ["b.mp4", "c.mp4", "deep/b.mp4"]


def test_from_the_command_line(
    tiny_model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the captioner that ships, which says nothing of what shows no thing of its world."""
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(clips / "deep")
    quick = [part for setting in [*QUICK[1:], "run.steps=1"] for part in ("--set", setting)]
    asked = ["train", "lora", str(clips), "-o", "z.safetensors", "--model", str(tiny_model), "--device", "cpu", *quick]
    assert main(asked) == 2
    assert "nothing is said of b.mp4 and 1 more" in capsys.readouterr().err
    assert main([*asked, "--captioner", "nobody"]) == 2
    assert "there is no captioner 'nobody'" in capsys.readouterr().err
    (clips / "a.txt").rename(tmp_path / "a.txt")
    assert main([*asked, "--captioner", "world"]) == 2
    assert "error: nothing is said of any clip in" in capsys.readouterr().err
    (tmp_path / "a.txt").rename(clips / "a.txt")
    scene = sample_scene(3, MIXES["simple"])
    Clip(render(scene, 128, 128, 9, 8.0).frames, 8.0).write(clips / "b.mp4")
    assert main([*asked, "--captioner", "world"]) == 0
    said = capsys.readouterr()
    assert "warning: c.mp4: " in said.err and "b.mp4: " in said.out
