"""Captions of clips: what is read off renders, lists of files, and a vision-language model at an endpoint."""

import base64
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from replies import replying

from yozora.captions import Caption, Event, caption_files, load_captioner
from yozora.captions.board import board_of, write_board
from yozora.captions.chat import FRAMES, ChatCaptioner
from yozora.captions.files import LIST, listed
from yozora.captions.seeing import Read, see
from yozora.captions.world import WorldCaptioner
from yozora.clip import Clip
from yozora.create.board import read_board
from yozora.errors import ConfigError, ModelError
from yozora.evaluate.background import hardly_changes, stands_still
from yozora.evaluate.camera import camera_of, filmed
from yozora.models.endpoint import Endpoint
from yozora.train.config import Footage
from yozora.train.footage import list_folder
from yozora.world import Body, Camera, Motion, Place, Scene, render


@pytest.fixture(scope="module")
def film() -> Clip:
    body = Body("sphere", "red", "matte", "large", (-1.2, 0.0), motion=Motion("right", speed=1.2))
    scene = Scene(1, (body,), Place("grass"))
    return Clip(render(scene, 128, 128, 25, 12.0, threads=1).frames, 12.0)


def test_a_render_is_read_and_told(film: Clip) -> None:
    read = see(film)
    so = {"shape": "sphere", "colour": "red", "ground": "grass", "direction": "right"}
    assert so.items() <= read.facts.items()
    said = WorldCaptioner().tell(read)
    assert "red ball" in said.short and "right" in said.short and "grass" in said.dense
    assert said.events[-1].end == pytest.approx(film.seconds, abs=0.01)
    assert "rote" in WorldCaptioner("de").tell(read).short.lower()


def test_what_moves_is_told_of_first_however_small() -> None:
    large = Body("box", "blue", "matte", "huge", (1.1, 0.6))
    small = Body("sphere", "yellow", "matte", "small", (-1.6, -0.4), motion=Motion("right", speed=0.7))
    scene = Scene(1, (large, small), Place("sand"))
    read = see(Clip(render(scene, 128, 128, 25, 12.0, threads=1).frames, 12.0))
    assert (read.facts["colour"], read.facts["second_colour"]) == ("yellow", "blue")


@pytest.mark.parametrize(("camera", "still"), [(Camera("still"), True), (Camera("pan", "left", 0.4), False)])
def test_a_camera_that_stands_still_is_known_by_the_background(camera: Camera, still: bool) -> None:
    body = Body("sphere", "red", "matte", "large", (-1.2, 0.0), motion=Motion("right", speed=1.2))
    scene = Scene(1, (body,), Place("city"), camera)
    film = render(scene, 128, 128, 25, 12.0, threads=1, truth=True)
    assert film.truth is not None
    assert stands_still(film.frames, film.truth.ids == 1) == still
    assert still or not hardly_changes(film.frames, film.truth.ids == 1)
    assert hardly_changes(np.repeat(film.frames[:1], 9, 0), film.truth.ids[:9] == 1)
    grey = np.full_like(film.frames, 90)  # there is nothing to see
    assert not stands_still(grey, film.truth.ids == 1) and not hardly_changes(grey, film.truth.ids == 1)


def test_an_empty_picture_has_no_caption() -> None:
    grey = Clip(np.full((9, 64, 64, 3), 128, np.uint8), 8)
    with pytest.raises(ModelError, match="no thing"):
        WorldCaptioner().caption(grey)


def test_events_begin_when_it_moves() -> None:
    facts = {"shape": "box", "colour": "blue", "motion": "slide", "direction": "left"}
    said = WorldCaptioner().tell(Read(facts, 2.0, 0.8))
    assert said.timed == "0.0–0.8 s: The blue box stands still; 0.8–2.0 s: The blue box slides to the left"
    assert len(WorldCaptioner().tell(Read(facts, 2.0, 0.1)).events) == 1


def test_a_caption_becomes_a_storyboard_that_is_read_again(film: Clip, tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    facts = {"shape": "box", "colour": "blue", "motion": "slide", "direction": "left"}
    write_board(board_of(WorldCaptioner().tell(Read(facts, 2.0, 0.8)), film, "a\nb.mp4"), file)
    board = read_board(file)
    told = [(0.0, "The blue box stands still."), (0.8, "The blue box slides to the left.")]
    assert [(cue.start, cue.prompt) for cue in board.cues] == told
    assert board.seconds == pytest.approx(film.seconds, abs=0.001) and board.asked.get("size") == "128x128"
    odd = Caption(short='A "red" ball\\ é', dense="A red ball.\n[[card]]", events=())
    write_board(board_of(odd, film), file)
    assert [cue.prompt for cue in read_board(file).cues] == ['A "red" ball\\ é']
    with pytest.raises(ConfigError, match=r"is a \.toml file"):
        write_board("", tmp_path / "board.mp4")
    with pytest.raises(ConfigError, match="cannot write"):
        write_board("", tmp_path / "none" / "board.toml")


@pytest.mark.parametrize(
    ("shape", "fps", "size", "seconds"),
    [
        ((3, 108, 190, 3), 8, "192x112", 0.375),
        ((62, 16, 16, 3), 1, "16x16", 60),
        ((1, 16, 4800, 3), 8, "4096x16", 0.125),
    ],
)
def test_a_storyboard_of_any_clip_may_be_asked_for(
    shape: tuple[int, ...], fps: float, size: str, seconds: float, tmp_path: Path
) -> None:
    file, clip = tmp_path / "board.toml", Clip(np.zeros(shape, np.uint8), fps)
    events = [Event(start=at, end=at, what=f"a ball, the {at:g}th") for at in (0.2, 0.2, 0.201, *range(1, 61))]
    said = Caption(short="A ball.", dense="A ball of red.", events=tuple(events))
    write_board(board_of(said, clip, "a\x1b \udcff.mp4"), file)
    board = read_board(file)
    assert board.asked.get("size") == size and board.seconds == seconds
    later = [cue.prompt for cue in board.cues if cue.start == 0.2]
    assert later == (["a ball, the 0.2th. a ball, the 0.2th. a ball, the 0.201th."] if seconds > 0.3 else [])


FILMED = [("pan", "left", 0.35), ("tilt", "up", 0.28), ("dolly", "in", 2.0), ("orbit", "right", 0.8)]


@pytest.mark.parametrize(
    ("kind", "to", "amount"), [*FILMED, ("zoom", "out", 1.7), ("handheld", "", 0.02), ("still", "", 0)]
)
def test_how_the_camera_moves_is_known_by_the_background(kind: str, to: str, amount: float) -> None:
    body = Body("sphere", "red", "matte", "large", (-1.2, 0.0), motion=Motion("right", speed=1.2))
    scene = Scene(1, (body,), Place("city"), Camera(kind, to, amount))
    film = render(scene, 128, 128, 25, 12.0, threads=1, truth=True)
    assert film.truth is not None
    read = filmed(film.frames, film.truth.ids == 1)
    assert read is not None and camera_of(read) == (kind, to)
    assert filmed(np.full_like(film.frames, 90), film.truth.ids == 1) is None  # there is nothing to see
    assert filmed(film.frames[:1], film.truth.ids[:1] == 1) is None


def test_a_folder_becomes_a_list_that_training_reads(film: Clip, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        film.write(tmp_path / name)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    output = tmp_path / "captions.jsonl"
    made = list(caption_files(tmp_path, WorldCaptioner(), output))
    assert [(one.name, one.caption is not None) for one in made] == [("a.mp4", True), ("b.mp4", True), ("c.mp4", False)]
    assert listed(output) == {"a.mp4", "b.mp4"}
    (tmp_path / "c.mp4").unlink()
    items = list_folder(Footage(path=tmp_path).path)
    assert [item.name for item in items] == ["a.mp4", "b.mp4"]
    assert all("red ball" in item.captions[0] for item in items)


def test_it_goes_on_where_it_was_cut_off(film: Clip, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        film.write(tmp_path / name)
    output = tmp_path / "list.jsonl"
    list(caption_files(tmp_path / "a.mp4", WorldCaptioner(), output))
    first = output.read_text()
    output.write_text(first + '{"file": "b.mp4", "sho')
    assert [one.name for one in caption_files(tmp_path, WorldCaptioner(), output)] == ["b.mp4"]
    assert output.read_text().startswith(first) and listed(output) == {"a.mp4", "b.mp4"}
    assert len(list(caption_files(tmp_path, WorldCaptioner(), output, again=True))) == 2
    assert len(output.read_text().splitlines()) == 2


def test_another_file_is_not_written_over(tmp_path: Path, film: Clip) -> None:
    film.write(tmp_path / "a.mp4")
    (tmp_path / "notes").write_text("dear diary\n")
    with pytest.raises(ConfigError, match="no list of captions"):
        list(caption_files(tmp_path, WorldCaptioner(), tmp_path / "notes"))
    assert (tmp_path / "notes").read_text() == "dear diary\n"
    with pytest.raises(ConfigError, match="no file or folder"):
        list(caption_files(tmp_path / "none", WorldCaptioner(), tmp_path / "x"))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("diary", ["dear diary\n", "dear diary", "{}", "[1]\n", "7"])
def test_what_is_no_list_is_never_written_over(diary: str, again: bool, film: Clip, tmp_path: Path) -> None:
    clip, notes = tmp_path / "a.mp4", tmp_path / "notes.txt"
    film.write(clip)
    notes.write_text(diary)
    with pytest.raises(ConfigError, match="no list of captions"):
        list(caption_files(clip, WorldCaptioner(), notes, again))
    assert notes.read_text() == diary
    before = clip.read_bytes()
    with pytest.raises(ConfigError, match="named like a clip"):
        list(caption_files(clip, WorldCaptioner(), clip, again))
    assert clip.read_bytes() == before


def test_again_replaces_the_lines_of_the_chosen_files_alone(film: Clip, tmp_path: Path) -> None:
    film.write(tmp_path / "a.mp4")
    output = tmp_path / "captions.jsonl"
    others = ['{"file": "ä.mp4", "short": "A dog."}', '{"file": "c.mp4", "short": "A cat."}']
    old = '{"file": "a.mp4", "short": "A cow."}'
    output.write_text("\n".join([others[0], old, others[1]]) + "\n", encoding="utf-8")
    list(caption_files(tmp_path / "a.mp4", WorldCaptioner(), output, again=True))
    first, new, last = output.read_text(encoding="utf-8").splitlines()
    assert [first, last] == others and "red ball" in json.loads(new)["short"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_again_keeps_the_old_line_of_what_cannot_be_captioned(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    output = tmp_path / "captions.jsonl"
    output.write_text('{"file": "a.mp4", "short": "A cow."}\n')
    (made,) = caption_files(tmp_path, WorldCaptioner(), output, again=True)
    assert made.caption is None and "A cow." in output.read_text()


def test_a_list_cut_off_within_a_letter_goes_on_and_one_without_a_last_end_is_whole(film: Clip, tmp_path: Path) -> None:
    film.write(tmp_path / "a.mp4")
    output = tmp_path / "captions.jsonl"
    output.write_bytes(b'{"file": "b.mp4"}\n{"file": "\xc3')
    assert listed(output) == {"b.mp4"}
    output.write_bytes(b'{"file": "b.mp4"}\n{"file": "c.mp4"}')
    list(caption_files(tmp_path, WorldCaptioner(), output))
    assert listed(output) == {"a.mp4", "b.mp4", "c.mp4"} and output.read_bytes().count(b"\n") == 3


def test_names_that_are_no_captioner() -> None:
    with pytest.raises(ConfigError, match="no captioner"):
        load_captioner("clippy")
    with pytest.raises(ConfigError, match="no captions in"):
        load_captioner("world", "tlh")


def test_an_endpoint_is_shown_frames(film: Clip) -> None:
    said = {
        "short": "A dog.",
        "dense": "A dog sits. It is day.",
        "events": [{"start": 0, "end": 1.5, "what": "it sits"}],
    }
    with replying(json.dumps(said)) as eyes:
        assert ChatCaptioner(Endpoint("eyes", eyes.url, seconds=5), "fr").caption(film) == Caption(
            short="A dog.", dense="A dog sits. It is day.", events=(Event(start=0, end=1.5, what="it sits"),)
        )
    text, *pictures = eyes.asked[0]["messages"][0]["content"]
    assert "French" in text["text"] and len(pictures) == FRAMES
    assert base64.b64decode(pictures[0]["image_url"]["url"].partition(",")[2]).startswith(b"\x89PNG")


def test_nonsense_from_an_endpoint_is_an_error_after_two_tries(film: Clip) -> None:
    with replying("What a lovely film!") as eyes:
        captioner = ChatCaptioner(Endpoint("eyes", eyes.url, seconds=5))
        with pytest.raises(ModelError, match="did not answer as it was asked"):
            captioner.caption(film)
    first, again = (asked["messages"][0]["content"] for asked in eyes.asked)
    assert again[:-1] == first and "did not answer as it was asked" in again[-1]["text"]


def test_control_characters_from_an_endpoint_are_refused(film: Clip) -> None:
    said = {"short": "A \x1b]0;dog\x07.", "dense": "A dog sits."}
    with replying(json.dumps(said), json.dumps(said | {"short": "A\ndog.", "events": None})) as eyes:
        caption = ChatCaptioner(Endpoint("eyes", eyes.url, seconds=5)).caption(film)
    assert len(eyes.asked) == 2 and caption == Caption(short="A dog.", dense="A dog sits.")


def test_what_an_endpoint_says_to_happen_is_within_the_clip_and_in_order(film: Clip) -> None:
    events = [{"start": 1, "end": 30_000, "what": "it sits"}, {"start": 0, "end": 1, "what": "it runs"}]
    events += [{"start": film.seconds + 1, "end": 9, "what": "it is gone"}]
    with replying(json.dumps({"short": "A dog.", "dense": "A dog sits.", "events": events})) as eyes:
        caption = ChatCaptioner(Endpoint("eyes", eyes.url, seconds=5)).caption(film)
    assert caption.timed == f"0.0–1.0 s: it runs; 1.0–{film.seconds:.1f} s: it sits"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_name_that_is_no_text_is_said_and_the_others_go_on(film: Clip, tmp_path: Path) -> None:
    film.write(tmp_path / "b.mp4")
    shutil.copy(tmp_path / "b.mp4", tmp_path / os.fsdecode(b"a\xff.mp4"))
    odd, plain = caption_files(tmp_path, WorldCaptioner(), tmp_path / LIST)
    assert odd.caption is None and "no UTF-8" in odd.reason and plain.name == "b.mp4" and plain.caption
    assert listed(tmp_path / LIST) == {"b.mp4"}
