"""Captions of clips: what is read off renders, lists of files, and a vision-language model at an endpoint."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from replies import replying

from yozora.captions import Caption, Event, caption_files, load_captioner
from yozora.captions.background import stands_still
from yozora.captions.chat import FRAMES, ChatCaptioner
from yozora.captions.files import listed
from yozora.captions.seeing import Read, see
from yozora.captions.world import WorldCaptioner
from yozora.clip import Clip
from yozora.errors import ConfigError, ModelError
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
    assert not stands_still(np.full_like(film.frames, 90), film.truth.ids == 1)  # there is nothing to see


def test_an_empty_picture_has_no_caption() -> None:
    grey = Clip(np.full((9, 64, 64, 3), 128, np.uint8), 8)
    with pytest.raises(ModelError, match="no thing"):
        WorldCaptioner().caption(grey)


def test_events_begin_when_it_moves() -> None:
    facts = {"shape": "box", "colour": "blue", "motion": "slide", "direction": "left"}
    said = WorldCaptioner().tell(Read(facts, 2.0, 0.8))
    assert said.timed == "0.0–0.8 s: The blue box stands still; 0.8–2.0 s: The blue box slides to the left"
    assert len(WorldCaptioner().tell(Read(facts, 2.0, 0.1)).events) == 1


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
    assert len(eyes.asked) == 2
