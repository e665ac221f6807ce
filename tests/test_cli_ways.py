"""The verbs of the ways: each writes its file, can be made again, and says in one line what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.cli import main
from yozora.clip import Clip, Recipe
from yozora.create import enhance as enhancing
from yozora.models.enhancer import Enhancer, EnhancerConfig
from yozora.models.folder import save_module


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
    Clip(np.zeros((2, 64, 64, 3), np.uint8), 8.0, Recipe(canvas={"enhance": {}})).write("e.mp4")
    of_gone = {
        "width": 64,
        "height": 64,
        "frames": 9,
        "fps": 8,
        "anchors": [{"source": "gone.mp4", "frames": 9, "hold": 1}],
    }
    Clip(np.zeros((2, 64, 64, 3), np.uint8), 8.0, Recipe(canvas=of_gone)).write("made.mp4")
    Clip(np.zeros((2, 64, 64, 3), np.uint8), 8.0, Recipe(canvas={"width": 64, "cues": 5})).write("cues.mp4")
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


@pytest.fixture
def enhancer(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny weights to enhance with."""
    sizes = {"width": 4, "depth": 0, "reach": 1, "search_width": 4, "search_depth": 0, "refine_width": 4}
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        save_module(Enhancer(EnhancerConfig(**sizes)), folder)
    monkeypatch.setattr(enhancing, "WEIGHTS", folder)


WAYS = {
    "animate": (["animate", "p.png", "x", "--seconds", "0.6"], 5),
    "extend": (["extend", "a.mp4", "x", "--seconds", "1"], 19),
    "extend backward": (["extend", "a.mp4", "--backward", "--seconds", "0.6"], 16),
    "fill": (["fill", "x", "--at", "0=p.png", "--at", "1.1=b.mp4"], 16),
    "loop of a clip": (["loop", "a.mp4", "--seconds", "0.5"], 15),
    "loop of a prompt": (["loop", "a red ball"], 8),
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


def test_variations_are_what_their_seeds_give_and_can_be_made_again(run, home: Path) -> None:
    run("loop", "a red ball", "--variations", "2", "--seed", "7", "-o", "v.mp4")
    run("again", "v-2.mp4", "-o", "second.mp4")
    assert (home / "v-2.mp4").read_bytes() == (home / "second.mp4").read_bytes()
    assert recipe_of("v-2.mp4").seed == 8


def test_sources_are_looked_for_beside_the_file(run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("inpaint", "a.mp4", "x", "--mask", "mask.png", "-o", "one.mp4")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    code, _, err = run("again", "../one.mp4", "-o", "two.mp4")
    assert (code, err) == (0, "")
    assert np.array_equal(Clip.read("two.mp4").frames, Clip.read("../one.mp4").frames)


def test_what_was_only_enhanced_is_enhanced_again(run, enhancer: None, home: Path) -> None:
    Clip(Clip.read("b.mp4").frames, 24.0).write("raw.mp4")
    assert main(["enhance", "raw.mp4", "--size", "120p", "--fps", "12", "-o", "one.mp4"]) == 0
    assert run("again", "one.mp4", "-o", "two.mp4")[0] == 0
    assert (home / "one.mp4").read_bytes() == (home / "two.mp4").read_bytes()
    assert run("again", "one.mp4", "-o", "three.mp4", "--enhance-fps", "24")[0] == 0
    assert Clip.read("three.mp4").fps == 24
    assert main(["enhance", "one.mp4", "--size", "240p", "-o", "twice.mp4"]) == 0
    assert run("again", "twice.mp4", "-o", "twice-again.mp4")[0] == 0
    assert (home / "twice.mp4").read_bytes() == (home / "twice-again.mp4").read_bytes()
    code, _, err = run("again", "one.mp4", "--prompt", "x")
    assert code == 2 and "was only enhanced" in err
    (home / "raw.mp4").unlink()
    code, _, err = run("again", "one.mp4")
    assert code == 2 and "made from raw.mp4, which is not here" in err


def test_an_aspect_is_kept_when_it_is_enlarged(run, enhancer: None) -> None:
    assert run("image", "x", "--aspect", "16:9", "--enhance", "180p", "-o", "wide.png")[0] == 0
    assert Clip.read("wide.png").size == (320, 180)


def test_what_is_not_as_one_may_think_is_said(
    enhancer: None, tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Clip(np.zeros((1, 2, 128, 3), np.uint8), 8.0).write("wide.png")
    Path("large.toml").write_text('resolution = "200p"\nseconds = 1\n[[card]]\nat = 0\nprompt = "x"\n')
    tiny = ["--model", str(tiny_model), "--steps", "1"]
    cases = {
        ("storyboard", "large.toml", "-o", "board.mp4", *tiny): "200x200 is far above what this model was trained on: "
        "made at 64x64 and enlarged",
        ("storyboard", "large.toml", "--size", "64x96", "-o", "own.mp4", *tiny): "64x96 is outside the sizes",
        ("image", "x", "--resolution", "200p", "-o", "large.png", *tiny): "200x200 is far above what this model was "
        "trained on: made at 64x64 and enlarged",
        (
            "image",
            "x",
            "--enhance",
            "24",
            "-o",
            "small.png",
            *tiny,
        ): "--enhance 24 makes 24x24 of 64x64; frames are for --enhance-fps",
        ("enhance", "wide.png", "--size", "1080p", "-o", "wider.png"): "1080p of this shape would have a side of over "
        "4096 pixels: it becomes 4096x64",
        ("recut", "a.mp4", "--keep", "0.3-0.9", *tiny): "is kept from 0.12 to 0.88 s",
    }
    for arguments, said in cases.items():
        assert main(list(arguments)) == 0
        err = capsys.readouterr().err
        assert said in err and all(line.startswith("warning: ") for line in err.splitlines())
    assert Clip.read("large.png").size == Clip.read("board.mp4").size == (200, 200)
    assert Clip.read("own.mp4").size == (64, 96)
    assert Clip.read("wider.png").size == (4096, 64)
    canvas = recipe_of("large.png").canvas
    assert (canvas["width"], canvas["enhance"]["size"]) == (64, [200, 200])


def test_a_contact_sheet_is_called_one(run) -> None:
    assert "9 frames, 1.12 s as one contact sheet" in run("generate", "x", "--seconds", "1.1", "-o", "s.png")[1]
    assert "contact sheet" not in run("generate", "x", "-o", "s.gif")[1]


def test_a_preset_is_put_on_once(run, preset: None) -> None:
    run("image", "a ball", "--preset", "mine", "-o", "one.png")
    run("again", "one.png", "--preset", "mine", "-o", "two.png")
    assert recipe_of("one.png").prompt == recipe_of("two.png").prompt == "Now: a ball, in fog"


def test_again_with_another_prompt(run) -> None:
    run("animate", "p.png", "x", "--seed", "1", "-o", "one.mp4")
    run("again", "one.mp4", "--prompt", "y", "-o", "two.mp4")
    one, two = Clip.read("one.mp4"), Clip.read("two.mp4")
    assert one.recipe is not None and two.recipe is not None
    assert (one.recipe.prompt, two.recipe.prompt, two.recipe.seed) == ("x", "y", 1)
    assert not np.array_equal(one.frames, two.frames)


def test_again_keeps_the_solver(run) -> None:
    run("image", "x", "--solver", "multistep", "-o", "one.png")
    run("again", "one.png", "-o", "two.png")
    run("again", "one.png", "-o", "three.png", "--solver", "dpm++")
    solvers = [recipe_of(name).solver for name in ("one.png", "two.png", "three.png")]
    assert solvers == ["multistep", "multistep", "dpm++"]


def recipe_of(path: str) -> Recipe:
    recipe = Clip.read(path).recipe
    assert recipe is not None
    return recipe


PRESET = """[mine]
prefix = "Now:"
suffix = ", in fog"
negative = "sun"
steps = 3
guidance = 1.5
aspect = "3:2"
"""


@pytest.fixture
def preset(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of the user's own, named mine."""
    for name in ("XDG_CONFIG_HOME", "APPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home / "config"))
    from yozora.create.presets import user_folder

    folder = user_folder()
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(PRESET)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["generate", "a ball.", "--seconds", "0.6"], (96, 64)),
        (["generate", "a ball", "--image", "p.png", "--seconds", "0.6"], (64, 64)),
        (["image", "a ball"], (96, 64)),
        (["loop", "a ball", "--seconds", "0.6"], (96, 64)),
        (["loop", "a.mp4", "a ball", "--seconds", "0.5"], (64, 64)),
        (["extend", "a.mp4", "a ball", "--seconds", "0.5"], (64, 64)),
        (["remix", "a.mp4", "a ball"], (64, 64)),
    ],
)
def test_a_preset_is_what_was_not_asked_for(run, preset: None, arguments: list[str], size: tuple[int, int]) -> None:
    assert run(*arguments, "--preset", "mine", "-o", "o.png")[0] == 0
    recipe = recipe_of("o.png")
    assert (recipe.prompt, recipe.negative) == ("Now: a ball, in fog", "sun")
    assert (recipe.guidance, recipe.steps) == (1.5, 1)  # the test's `run` asks for one step
    assert (recipe.canvas["width"], recipe.canvas["height"]) == size


def test_what_is_asked_for_wins_over_the_preset(run, preset: None) -> None:
    asked = ["--guidance", "2", "--negative", "rain", "--aspect", "1:1", "--preset", "mine"]
    assert run("image", "a ball", *asked, "-o", "o.png")[0] == 0
    recipe = recipe_of("o.png")
    assert (recipe.guidance, recipe.negative, recipe.canvas["width"]) == (2, "rain", 64)
    assert run("again", "o.png", "--prompt", "b", "--preset", "mine", "-o", "p.png")[0] == 0
    recipe = recipe_of("p.png")
    assert (recipe.prompt, recipe.negative, recipe.guidance) == ("Now: b, in fog", "rain", 1.5)


def test_each_prompt_of_a_storyboard_has_the_style(run, preset: None) -> None:
    assert run("storyboard", "board.toml", "--preset", "mine")[0] == 0
    assert [cue["prompt"] for cue in recipe_of("out.mp4").canvas["cues"]] == ["Now: x, in fog"]


def test_a_storyboard_says_how_it_is_fitted_unless_the_command_does(run) -> None:
    Path("padded.toml").write_text('fit = "pad"\nsize = "64x32"\n[[card]]\nat = 0\nimage = "p.png"\nprompt = "x"\n')
    for said, expected in (([], "pad"), (["--fit", "stretch"], "stretch")):
        assert run("storyboard", "padded.toml", *said)[0] == 0
        assert [anchor["fit"] for anchor in recipe_of("out.mp4").canvas["anchors"]] == [expected]


def test_what_is_made_is_enhanced_and_can_be_made_again(run, enhancer: None, home: Path) -> None:
    code, out, err = run("loop", "a ball", "--enhance", "100p", "--enhance-fps", "12", "--seed", "1", "-o", "one.mp4")
    assert (code, err) == (0, "")
    assert out.startswith("one.mp4: 100x100, 12 frames, 1.00 s, seed 1")
    clip = Clip.read("one.mp4")
    assert (clip.size, clip.fps, len(clip.frames)) == ((100, 100), 12, 12)
    assert recipe_of("one.mp4").canvas["enhance"] == {"size": [100, 100], "fps": 12, "fit": "crop"}
    assert run("again", "one.mp4", "-o", "two.mp4")[0] == 0
    assert (home / "one.mp4").read_bytes() == (home / "two.mp4").read_bytes()
    assert "128x64, 12 frames" in run("again", "one.mp4", "--enhance", "128x64", "-o", "three.mp4")[1]


def test_variations_are_enhanced_side_by_side(run, enhancer: None) -> None:
    """In parts, for the video is longer than the model's window."""
    arguments = ["generate", "x", "--seconds", "3", "--variations", "2", "--seed", "1", "--sheet", "s.png"]
    assert run(*arguments, "-o", "plain.mp4")[0] == 0
    assert run(*arguments, "--enhance", "96p", "--json")[0] == 0
    plain = [Clip.read(f"plain-{number}.mp4").frames.astype(float) for number in (1, 2)]
    for number in (0, 1):
        large = Clip.read(f"out-{number + 1}.mp4")
        assert large.frames.shape == (25, 96, 96, 3)
        small = large.resized(64, 64).frames
        own, other, late = (
            np.abs(small - frames).mean((1, 2, 3))
            for frames in (plain[number], plain[1 - number], np.roll(plain[number], 1, axis=0))
        )
        assert (own < other).all() and (own < late).all()


def test_a_picture_that_is_enhanced_stays_one(run, enhancer: None) -> None:
    assert "96x96, a picture" in run("image", "x", "--enhance", "96p", "--enhance-fps", "24", "-o", "o.png")[1]
    assert Clip.read("o.png").size == (96, 96)


def test_without_weights_to_enhance_nothing_is_loaded(run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(enhancing, "WEIGHTS", home / "none")
    monkeypatch.setattr("yozora.create.load", load)
    code, out, err = run("generate", "x", "--enhance", "1080p")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no weights for enhancing" in err


@pytest.mark.parametrize(
    "said", ["large", {"size": [64], "fps": 8, "fit": "crop"}, {"size": [0, 0], "fps": 8, "fit": "x"}]
)
def test_a_recipe_that_enhances_wrongly_is_one_line(run, said: object) -> None:
    run("image", "x", "-o", "one.png")
    clip = Clip.read("one.png")
    assert clip.recipe is not None
    clip.recipe.canvas["enhance"] = said
    clip.write("two.png")
    code, out, err = run("again", "two.png", "-o", "three.png")
    assert (code, out, err.count("\n")) == (2, "", 1)


BAD = {
    "missing clip": (["extend", "none.mp4"], "does not exist"),
    "no video": (["extend", "board.toml"], "board.toml"),
    "nan": (["extend", "a.mp4", "--seconds", "nan"], "not a length"),
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
    "preset": (["generate", "x", "--preset", "none"], "there is no preset 'none'"),
    "solver": (["generate", "x", "--solver", "none"], "unknown solver 'none'"),
    "enhanced size": (["generate", "x", "--enhance", "large"], "is not a resolution"),
    "enhanced shape": (["generate", "x", "--enhance", "0x9"], "width 0"),
    "enhanced rate": (["generate", "x", "--enhance-fps", "nan"], "--enhance-fps: nan frames a second is not a rate"),
    "next to nothing kept": (["recut", "a.mp4", "--keep", "0-0.01"], "is shorter than a frame"),
    "only enhanced here": (["again", "e.mp4"], "does not say how it was made"),
    "fitted again": (["again", "made.mp4", "--fit", "pad"], "leave --size, --aspect, --resolution and --fit out"),
    "source gone": (["again", "made.mp4"], "was made from gone.mp4, which is not here"),
    "prompts of another form": (["again", "cues.mp4", "--prompt", "x"], "not a canvas"),
    "no such file": (["loop", "gone.wmv"], "does not exist"),
    "odd sides": (["generate", "x", "--enhance", "33x32"], "the sides of an MP4 are even, not 33x32: ask for 32x32"),
    "a name for a size": (["generate", "x", "--size", "1080p"], "for a short side such as 480p"),
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


def test_what_a_file_is_made_from_is_not_replaced(run, capsys: pytest.CaptureFixture[str]) -> None:
    before, same = Path("a.mp4").read_bytes(), f"../{Path.cwd().name}/a.mp4"
    for asked in (["extend", "a.mp4"], ["remix", "a.mp4", "a ball"]):
        code, _, err = run(*asked, "-o", same)
        assert code == 2 and "is what this is made from" in err and err.count("\n") == 1
    assert main(["enhance", "a.mp4", "--size", "128p", "-o", same]) == 2
    assert "is what this is made from" in capsys.readouterr().err
    assert Path("a.mp4").read_bytes() == before
