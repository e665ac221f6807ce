"""The verbs of the ways: each writes its file, can be made again, and says in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from yozora.cli import main
from yozora.clip import Clip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with something to work on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def plain(frames: int, width: int, height: int, fps: float) -> Clip:
        return Clip(rng.integers(0, 256, (frames, 1, 1, 3), np.uint8).repeat(height, 1).repeat(width, 2), fps)

    plain(11, 64, 64, 8.0).write("a.mp4")
    plain(20, 96, 60, 24.0).write("b.mp4")
    plain(1, 64, 64, 8.0).write("p.png")
    mask = np.zeros((1, 64, 64, 3), np.uint8)
    mask[:, :20, :20] = 255
    Clip(mask, 1.0).write("mask.png")
    Path("board.toml").write_text('[[card]]\nat = 0\nprompt = "x"\n[[card]]\nat = 1\nimage = "p.png"\n')
    return tmp_path


@pytest.fixture
def run(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a verb with the tiny model: (exit code, stdout, stderr without warnings)."""

    def verb(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--model", str(tiny_model), "--steps", "1"])
        captured = capsys.readouterr()
        return (
            code,
            captured.out,
            "".join(line for line in captured.err.splitlines(True) if not line.startswith("warning")),
        )

    return verb


WAYS = {
    "animate": (["animate", "p.png", "x", "--seconds", "0.6"], 5),
    "extend": (["extend", "a.mp4", "x", "--seconds", "1"], 19),
    "extend backward": (["extend", "a.mp4", "--backward", "--seconds", "0.6"], 16),
    "fill": (["fill", "x", "--at", "0=p.png", "--at", "1.1=b.mp4"], 13),
    "loop of a clip": (["loop", "a.mp4", "--seconds", "0.5"], 15),
    "loop of a prompt": (["loop", "a red ball"], 9),
    "blend": (["blend", "a.mp4", "b.mp4", "--curve", "mix", "--seconds", "2"], 17),
    "remix": (["remix", "b.mp4", "x", "--strength", "strong"], 7),
    "recut": (["recut", "a.mp4", "--keep", "0-.5", "--keep", "1-1.3", "--to", "2"], 16),
    "inpaint": (["inpaint", "a.mp4", "x", "--mask", "mask.png"], 11),
    "storyboard": (["storyboard", "board.toml", "--fit", "pad"], 25),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_writes_a_file_that_can_be_made_again(run, home: Path, way: str) -> None:
    arguments, frames = WAYS[way]
    code, out, err = run(*arguments, "--seed", "4", "-o", "one.mp4")
    assert (code, err) == (0, "")
    assert out.startswith("one.mp4: ") and f"{frames} frames" in out
    assert run("again", "one.mp4", "-o", "two.mp4")[0] == 0
    assert (home / "one.mp4").read_bytes() == (home / "two.mp4").read_bytes()
    assert run("again", "one.mp4", "-o", "three.mp4", "--seed", "5")[0] == 0
    assert (home / "one.mp4").read_bytes() != (home / "three.mp4").read_bytes()


def test_an_image_is_a_picture_and_variations_are_numbered(run, home: Path) -> None:
    assert "a picture" in run("image", "a red ball")[1]
    assert Clip.read("out.png").size == (64, 64)
    assert run("extend", "a.mp4", "--variations", "2", "--seed", "1", "--sheet", "s.png", "-o", "v.mp4")[0] == 0
    one, two = Clip.read("v-1.mp4"), Clip.read("v-2.mp4")
    assert one.frames.shape == two.frames.shape
    assert not np.array_equal(one.frames[12:], two.frames[12:])
    assert (home / "s-1.png").exists() and (home / "s-2.png").exists()


def test_again_with_another_prompt(run) -> None:
    run("animate", "p.png", "x", "--seed", "1", "-o", "one.mp4")
    run("again", "one.mp4", "--prompt", "y", "-o", "two.mp4")
    one, two = Clip.read("one.mp4"), Clip.read("two.mp4")
    assert one.recipe is not None and two.recipe is not None
    assert (one.recipe.prompt, two.recipe.prompt, two.recipe.seed) == ("x", "y", 1)
    assert not np.array_equal(one.frames, two.frames)


BAD = {
    "missing clip": (["extend", "none.mp4"], "does not exist"),
    "no video": (["extend", "board.toml"], "board.toml"),
    "nan": (["extend", "a.mp4", "--seconds", "nan"], "not a length"),
    "too far back": (["extend", "a.mp4", "--backward", "--seconds", "9"], "goes back at most"),
    "fit": (["extend", "a.mp4", "--fit", "zoom"], "no way to fit"),
    "card": (["fill", "--at", "p.png"], "no card"),
    "card's time": (["fill", "--at", "nan=p.png"], "no time"),
    "no cards": (["fill", "x"], "nothing is given"),
    "overlap": (["fill", "--at", "0=a.mp4", "--at", "1=p.png"], "overlaps"),
    "past the end": (["fill", "--at", "9=p.png", "--seconds", "1"], "past the end"),
    "no pieces": (["recut", "a.mp4"], "nothing is kept"),
    "piece": (["recut", "a.mp4", "--keep", "a-b"], "no piece"),
    "empty piece": (["recut", "a.mp4", "--keep", "1-1"], "is empty"),
    "late piece": (["recut", "a.mp4", "--keep", "1-9"], "past the end of the clip"),
    "curve": (["blend", "a.mp4", "b.mp4", "--curve", "0:2"], "no curve"),
    "strength": (["remix", "a.mp4", "x", "--strength", "much"], "no strength"),
    "empty prompt": (["remix", "a.mp4", " "], "prompt is empty"),
    "mask's shape": (["inpaint", "a.mp4", "x", "--mask", "b.mp4"], "same shape"),
    "two prompts": (["loop", "a ball", "a cube"], "two prompts"),
    "not made here": (["again", "a.mp4"], "does not say how it was made"),
    "no board": (["storyboard", "p.png"], "no storyboard"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, home: Path, case: str) -> None:
    arguments, said = BAD[case]
    before = sorted(path.name for path in home.iterdir())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 400
    assert said in err
    assert sorted(path.name for path in home.iterdir()) == before
