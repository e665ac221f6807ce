"""`yozora evaluate`: the report it writes, and one line for everything a user can get wrong."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from clips import gradient

from yozora.cli import main
from yozora.cli.evaluate import Asked, loaded
from yozora.clip import Clip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some footage in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "footage").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def run(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `yozora evaluate` with the tiny model: (exit code, stdout, stderr)."""

    def evaluate(*arguments: str, model: str | None = None) -> tuple[int, str, str]:
        code = main(["evaluate", model or str(tiny_model), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return evaluate


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_world_suite_writes_a_report(run, home: Path) -> None:
    asked = ("--only", "consistency", "--prompts", "1", "--seconds", "2", "--steps", "1", "--guidance", "1")
    code, out, err = run(*asked)
    assert (code, err) == (0, "")
    assert "World consistency" in out and "Video quality" not in out
    assert out.splitlines()[-1].startswith("report/index.html: tiny, world suite, measured in ")
    said = json.loads((home / "report" / "report.json").read_text(encoding="utf-8"))
    assert [section["title"] for section in said["sections"]] == ["World consistency"]
    settings = {"steps": 1, "guidance": 1.0, "prompts a category": 1, "seconds": 2.0, "measured": "consistency"}
    assert said["settings"] | settings == said["settings"]
    assert names(home) == ["empty", "footage", "report"]


def test_the_media_suite_measures_any_footage(run, home: Path) -> None:
    footage = home / "footage"
    Clip(gradient(12), 8.0).write(footage / "waves.mp4")
    (footage / "waves.txt").write_text("soft waves\nof <colour>")
    Clip(gradient(1), 1.0).write(footage / "one.png")
    Clip(gradient(30, 50, 70), 24.0).write(footage / "tall.gif")
    (footage / "tall.txt").write_bytes(b"\xff\xfe\x00")
    (footage / "broken.mp4").write_bytes(b"no video")
    (footage / ".hidden").write_bytes(b"")
    code, out, err = run("footage", "--suite", "media", "--json", "-o", "r")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["path"], said["suite"], said["settings"]["folder"]) == ("r", "media", "footage")
    (section,) = said["sections"]
    assert set(section["figures"]["files"]) == {"one.png", "tall.gif", "waves.mp4"}
    waves = section["figures"]["files"]["waves.mp4"]
    assert set(waves["motion smoothness"]) == {"the clips", "through the autoencoder", "continued", "from the prompts"}
    assert waves["PSNR, dB"]["through the autoencoder"] > 0
    assert "from the prompts" not in section["figures"]["files"]["tall.gif"]["flicker, of 255"]
    notes = "\n".join(section["notes"])
    assert "broken.mp4 was left out" in notes and "tall.txt was not used: it is no UTF-8 text" in notes
    assert "CLIP score: not run" in notes and "VBench's measures: not run" in notes and "hidden" not in notes
    assert "&lt;colour&gt;" in (home / "r" / "index.html").read_text(encoding="utf-8")
    assert Clip.read(home / "r" / "clips" / "0-000.mp4").frames.ndim == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--suite", "films"), "unknown suite 'films'; known: world, media"),
        (("--only", "quality,speed"), "cannot measure 'speed'; known: following, quality, consistency"),
        (("--only", ""), "known: following"),
        (("--prompts", "0"), "0 prompts a category cannot be used"),
        (("--prompts", "x"), "valid integer"),
        (("--prompts", "100000"), "use 1 to 1000"),
        (("--seconds", "nan"), "nan"),
        (("--seconds", "-1"), "-1"),
        (("--seconds", "1"), "at least 2 s"),
        (("--seconds", "1e9"), "too long"),
        (("--steps", "0"), "0 steps cannot be taken"),
        (("--guidance", "999"), "guidance 999 is out of range"),
        (("--solver", "magic"), "unknown solver 'magic'"),
        (("--solver", "flow-map"), "has no few-step weights"),
        (("--device", "tpu"), "device 'tpu' cannot be used here"),
        (("--suite", "media"), "needs a folder with clips"),
        (("footage",), "a folder is measured with --suite media"),
        (("--clip", "footage"), "--clip is measured with --suite media"),
        (("empty", "--suite", "media"), "there are no clips in empty"),
        (("nowhere", "--suite", "media"), "nowhere is no folder"),
        (("-o", "footage"), "footage is not empty and holds no report"),
        (("-o", "a/b"), "the folder a does not exist"),
        (("-o", "footage/mine.txt"), "is a file"),
    ],
)
def test_what_cannot_be_is_one_line(run, home: Path, arguments: tuple[str, ...], reason: str) -> None:
    (home / "footage" / "mine.txt").write_text("mine")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert reason in err
    assert names(home) == ["empty", "footage"]


def test_footage_alone_is_measured_with_the_shipped_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "empty", "--suite", "media"]) == 2
    assert "there are no clips in empty" in capsys.readouterr().err


def test_a_first_look_is_small() -> None:
    def asked(prompts: int | None, seconds: float | None, quick: bool) -> tuple[int, float]:
        some = Asked("world", None, "quality", prompts, seconds, quick, None)
        return some.count, some.length

    assert asked(None, None, False) == (16, 20.0)
    assert asked(None, None, True) == (2, 4.0)
    assert asked(5, 8.0, True) == (5, 8.0)


def test_a_model_that_is_none(run, home: Path) -> None:
    code, _, err = run("--only", "quality", model="nosuch")
    assert code == 2 and "there is no model 'nosuch'" in err


def test_footage_of_which_nothing_can_be_read(run, home: Path) -> None:
    (home / "footage" / "broken.mp4").write_bytes(b"no video")
    code, _, err = run("footage", "--suite", "media")
    assert code == 2 and "no clip in footage can be read: broken.mp4 was left out" in err
    assert names(home) == ["empty", "footage"]


@pytest.mark.parametrize("name", ["empty", "footage"])
def test_a_clip_model_that_is_none(run, home: Path, name: str) -> None:
    Clip(np.zeros((1, 32, 32, 3), np.uint8), 1.0).write(home / "footage" / "a.png")
    (home / "footage" / "config.json").write_text("{")
    code, _, err = run("footage", "--suite", "media", "--clip", name)
    assert code == 2 and err.count("\n") == 1
    assert ("needs transformers" in err) or find_spec("transformers")


def test_ctrl_c_leaves_nothing(tiny_model: Path, home: Path) -> None:
    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with pytest.raises(KeyboardInterrupt):
            main(["evaluate", str(tiny_model), "--only", "quality", "--prompts", "500"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert names(home) == ["empty", "footage"]


@pytest.mark.parametrize(
    ("asked", "sampled"),
    [
        ((None, None, None), (12, 5.0, "multistep", True)),
        ((4, 2.0, "dpm++"), (4, 2.0, "dpm++", True)),
        ((None, None, "flow-map"), (4, 1.0, "flow-map", False)),
        ((8, None, "flow-map"), (8, 1.0, "flow-map", False)),
    ],
)
def test_what_is_measured_is_sampled_as_asked(asked: tuple, sampled: tuple) -> None:
    settings = loaded("mini", "cpu", *asked).settings()
    assert (settings.steps, settings.guidance, settings.solver, settings.projected) == sampled
