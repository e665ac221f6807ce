"""Presets: shipped ones, the user's own, and what is said about files that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yozora.cli import main
from yozora.create.canvas import check_prompt
from yozora.create.presets import SHIPPED, Preset, apply_preset, find_preset, load_presets, user_folder
from yozora.errors import ConfigError, YozoraWarning


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of presets, empty, whatever the system."""
    for name in ("XDG_CONFIG_HOME", "APPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    folder = user_folder()
    assert folder is not None and tmp_path in folder.parents
    folder.mkdir(parents=True)
    return folder


def test_the_shipped_ones_can_be_applied_and_differ() -> None:
    presets = load_presets()
    assert {"cartoon", "sketch", "pixel-art", "film-noir", "night", "sunset", "snowstorm"} <= presets.keys()
    made = [(preset.apply("a red ball rolls"), str(preset.settings)) for preset in presets.values()]
    assert len(set(made)) == len(made) and ("a red ball rolls", "{}") not in made
    assert all(preset.description for preset in presets.values())


def test_the_words_go_around_the_prompt() -> None:
    both = Preset("x", prefix="Sketch:", suffix=", at night")
    assert both.apply(" a ball rolls. ") == "Sketch: a ball rolls, at night"
    assert both.apply("") == "Sketch: at night"
    assert Preset("x", suffix=" at night").apply("a ball") == "a ball at night"
    assert Preset("x").apply("a ball.") == "a ball."


def test_what_is_asked_for_wins(mine: Path) -> None:
    (mine / "a.toml").write_text('[all]\nsuffix="!"\nnegative="fog"\nsteps=9\nguidance=2\naspect="9:16"\n')
    assert apply_preset("all", "a ball", {}) == (
        "a ball !",
        {"negative": "fog", "steps": 9, "guidance": 2, "aspect": "9:16"},
    )
    asked = {"negative": "", "steps": 4, "guidance": None, "aspect": None, "size": "64x64", "seconds": 2}
    assert apply_preset("all", "a ball", asked)[1] == {**asked, "negative": "fog", "guidance": 2}
    assert asked["guidance"] is None
    assert apply_preset("all", "a ball", {"aspect": "1:1", "negative": "rain"})[1]["aspect"] == "1:1"


@given(st.sampled_from(sorted(load_presets())), st.text(max_size=50).filter(str.strip))
def test_a_prompt_stays_a_prompt(name: str, prompt: str) -> None:
    text, _ = apply_preset(name, prompt, {})
    assert prompt.strip().removesuffix(".").rstrip() in text
    if prompt.isprintable():
        check_prompt(text, needed=True)


def test_a_users_preset_replaces_a_shipped_one_and_others_stay(mine: Path) -> None:
    (mine / "own.toml").write_text('[cartoon]\nsuffix = ", as anime"\n["夜空"]\nprefix = "Night sky:"\n')
    (mine / "notes.txt").write_text("not a preset")
    assert find_preset("cartoon").suffix == ", as anime"
    assert find_preset("夜空").prefix == "Night sky:"
    assert find_preset("sketch").suffix


@pytest.mark.parametrize("name", ["", "noir", "Cartoon", "a\nb", None, [], "x" * 5000])
def test_an_unknown_one_names_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no preset .*known: cartoon, .*snowstorm") as caught:
        apply_preset(name, "a ball", {})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text, words",
    [
        (b"[x]\nsuffix = ", r"own\.toml is not valid TOML: .*line 2"),
        (b"[x]\n\nsuffix = 'a'\nsuffix = 'b'", r"own\.toml is not valid TOML: .*line 4"),
        (b"[x]\nsuffix = '\xff'", r"own\.toml is not valid TOML: .*utf-8"),
        (b"a = " + b"[" * 9000, r"own\.toml is not valid TOML"),
        (b"suffix = 'a'", r"own\.toml: 'suffix' stands outside a table"),
        (b"[x]\nstyle = 'a'", r"own\.toml: preset 'x': unknown key 'style'; known: description, prefix, suffix"),
        (b"[x]\nname = 'a'", r"unknown key 'name'"),
        (b"[x]\nsuffix = 3", r"own\.toml: preset 'x': suffix must be text"),
        (b"[x]\nprefix = '" + b"a" * 2000 + b"'", r"prefix must be text of at most 1000"),
        (b"[x]\nsteps = '4'", r"preset 'x': steps must be a whole number, not '4'"),
        (b"[x]\nsteps = true", r"steps must be a whole number"),
        (b"[x]\nguidance = nan", r"guidance nan is out of range"),
        (b"[x]\naspect = '20:0'", r"'20:0' is not an aspect"),
        (b"[x]\naspect = 1979-05-27", r"aspect must be a number"),
    ],
)
def test_files_that_are_wrong(mine: Path, text: bytes, words: str) -> None:
    (mine / "own.toml").write_bytes(text)
    (mine / "right.toml").write_text("[y]\n")
    with pytest.warns(YozoraWarning, match=words) as caught:
        presets = load_presets()
    (line,) = (str(each.message) for each in caught)
    assert "\n" not in line and len(line) < 450 and "none of its presets is known" in line
    assert "x" not in presets and {"y", "sketch"} <= presets.keys()


def test_files_that_cannot_be_read_or_disagree(mine: Path) -> None:
    (mine / "a.toml").write_text("[x]\n")
    (mine / "b.toml").write_text("[x]\n[y]\n")
    with pytest.warns(YozoraWarning, match=r"b\.toml: the preset 'x' is in .*a\.toml, too"):
        assert {"x", "y"} & load_presets().keys() == {"x"}
    (mine / "a.toml").unlink()
    (mine / "a.toml").mkdir()
    with pytest.warns(YozoraWarning, match=r"cannot read .*a\.toml"):
        assert "y" in load_presets()


def test_without_a_folder_there_are_the_shipped_ones(mine: Path) -> None:
    shipped = load_presets()
    mine.rmdir()
    mine.parent.rmdir()
    assert load_presets() == shipped


def test_where_the_users_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert user_folder() == tmp_path / "yozora" / "presets"
    for unusable in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CONFIG_HOME", unusable)
        assert user_folder() == tmp_path / ".config" / "yozora" / "presets"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert user_folder() == tmp_path / "Library" / "Application Support" / "yozora" / "presets"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    assert user_folder() == tmp_path / "Roaming" / "yozora" / "presets"


def test_the_command_lists_them(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "own.toml").write_text('[mine]\nsuffix = ", by me"\nsteps = 3\n[empty]\n')
    assert main(["presets", "list"]) == 0
    printed = capsys.readouterr().out
    assert "mine\n    …, by me; steps 3\nempty\n    changes nothing\n" in printed
    assert all(name in printed for name in load_presets()) and str(mine) in printed
    (mine / "own.toml").write_text("[mine")
    assert main(["presets", "list"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: ") and error.count("\n") == 1 and "own.toml" in error


def test_the_shipped_file_lies_in_the_package() -> None:
    import yozora

    assert SHIPPED.is_relative_to(Path(yozora.__file__).parent) and SHIPPED.is_file()
