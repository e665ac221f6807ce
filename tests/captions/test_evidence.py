"""What is gathered of a clip: places on the ground that stay while the camera turns, sizes, and mirrors."""

import numpy as np
import pytest
import torch

from yozora.captions.learning import HEADS, names_of, numbers_of, softened
from yozora.captions.seeing import facts_of, see
from yozora.clip import Clip
from yozora.evaluate.evidence import Evidence, Sight, gather, look_around, mirrored
from yozora.evaluate.weighing import Likely, load_eyes
from yozora.train.inspector import UNNAMED
from yozora.world import Body, Camera, Motion, Place, Scene, render

X, GROUND, BIG = 0, 10, 12  # channels of a track


STILL, LED = Camera(), Camera("pan", "left", 0.4)
RESTS = Motion()


def _look(*bodies: Body, camera: Camera = STILL) -> tuple[Sight, np.ndarray]:
    scene = Scene(1, bodies, Place("city"), camera)
    frames = render(scene, 128, 128, 25, 12.0, threads=1).frames
    eyes = load_eyes()
    return look_around(Clip(frames, 12.0), eyes.inspector, eyes.reader), frames


def _ball(size: str = "large", motion: Motion = RESTS) -> Body:
    return Body("sphere", "red", "matte", size, (0.3, 0.0), motion=motion)


def _gone(evidence: Evidence, channel: int) -> float:
    track = evidence.tracks[0, 0, channel]
    return float(track[-1] - track[0])


def test_what_stands_still_stays_on_the_ground_while_the_camera_turns() -> None:
    evidence = gather(_look(_ball(), camera=LED)[0])
    assert _gone(evidence, X) > 0.6  # of half the frame's height
    assert abs(_gone(evidence, GROUND)) < 0.2
    moved = gather(_look(_ball(motion=Motion("right", speed=0.8)))[0])
    assert _gone(moved, GROUND) > 0.6


def test_a_larger_ball_is_larger() -> None:
    sizes = [float(gather(_look(_ball(size))[0]).tracks[0, 0, BIG].mean()) for size in ("small", "large", "huge")]
    assert np.diff(sizes) == pytest.approx(np.diff(np.log([0.42, 0.62, 0.88])), abs=0.12)


def test_a_mirror_turns_left_into_right() -> None:
    # it stays in the picture: what is left of a ball at the edge has no shape that two looks agree on
    sight, frames = _look(_ball(motion=Motion("right", speed=0.2)), camera=LED)
    eyes = load_eyes()
    other = gather(look_around(Clip(frames[:, :, ::-1].copy(), 12.0), eyes.inspector, eyes.reader))
    same = mirrored(gather(sight))
    assert torch.allclose(same.tracks[0, 0], other.tracks[0, 0], atol=0.15)
    assert torch.equal(mirrored(same).whole, gather(sight).whole)
    assert torch.allclose(same.whole[:, :10], other.whole[:, :10], atol=0.7)


def test_an_empty_clip_gives_numbers() -> None:
    eyes = load_eyes()
    grey = Clip(np.full((5, 48, 80, 3), 128, np.uint8), 8)
    evidence = gather(look_around(grey, eyes.inspector, eyes.reader))
    assert all(bool(torch.isfinite(part).all()) for part in evidence)
    told = eyes.weigher(*evidence)
    assert all(float(logs.exp().sum()) == pytest.approx(1, abs=1e-4) for logs in told.values())


def test_of_things_that_do_alike_the_one_that_looks_largest_is_told_of_first() -> None:
    small = Body("box", "blue", "matte", "small", (-1.0, 0.0))
    names = names_of(Scene(1, (small, _ball("huge")), Place("grass")))
    assert (names["colour"], names["second_colour"], names["things"]) == ("red", "blue", "2")
    names = names_of(Scene(1, (_ball("huge"), Body(**{**vars(small), "motion": Motion("left", speed=0.5)}))))
    assert (names["colour"], names["direction"], names["filmed"]) == ("blue", "left", "still")
    numbers = dict(zip(HEADS, numbers_of(names, HEADS), strict=True))
    assert numbers["direction"] == HEADS["direction"].index("left") and numbers["time"] == UNNAMED


def test_where_the_second_thing_is_is_told_and_is_the_other_way_round_in_a_mirror() -> None:
    box = Body("box", "blue", "matte", "small", (1.3, 0.1))
    _, frames = _look(Body("sphere", "red", "matte", "large", (-0.5, 0.0), motion=Motion("bounce", height=1.2)), box)
    told = [see(Clip(each, 12.0)).facts for each in (frames, frames[:, :, ::-1].copy())]
    assert [facts["second_shape"] for facts in told] == ["box", "box"]
    assert [facts["relation"] for facts in told] == ["right", "left"]


@pytest.mark.parametrize("head", ["size", "motion", "direction", "filmed"])
def test_what_is_told_alone_hears_of_nothing_else(head: str) -> None:
    weigher, evidence = load_eyes().weigher, gather(_look(_ball())[0])
    tops = evidence.whole.clone()
    tops[:, -weigher.config.rows :] += torch.randn(1, weigher.config.rows, generator=torch.Generator().manual_seed(0))
    one, other = (weigher(*each) for each in (evidence, evidence._replace(whole=tops)))
    assert not torch.allclose(one["ground"], other["ground"], atol=1e-3)
    # which of the candidates is the main one may depend on all; here all are the same ball
    assert torch.allclose(one[head].exp(), other[head].exp(), atol=0.03)


def test_softened_frames_are_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
    soft = softened(frames, 1)
    assert soft.shape == frames.shape and soft.dtype == np.uint8 and not np.array_equal(soft, frames)
    assert np.array_equal(soft, softened(frames, 1))


def _told(**names: tuple[str, float]) -> dict[str, Likely]:
    known = {"shape": ("box", 0.9), "colour": ("red", 0.9), "colour_to": ("blue", 0.9), "things": ("1", 0.9)}
    return {name: Likely(*each) for name, each in (known | names).items()}


def test_what_is_not_sure_or_does_not_fit_is_not_told() -> None:
    assert facts_of(_told(size=("tiny", 0.3))) == {"shape": "box", "colour": "red"}
    inside = facts_of(_told(ground=("studio", 0.9), time=("night", 0.9)))
    assert inside == {"shape": "box", "colour": "red", "ground": "studio"}
    still = facts_of(_told(motion=("still", 0.9), direction=("left", 0.9)))
    assert "direction" not in still
    turns = facts_of(_told(motion=("recolour", 0.9), filmed=("pan left", 0.9)))
    assert (turns["colour_to"], turns["camera"], turns["camera_direction"]) == ("blue", "pan", "left")
    grey = facts_of(_told(motion=("recolour", 0.9), style=("sketch", 0.9)))
    assert "colour" not in grey and "colour_to" not in grey
    two = _told(things=("2", 0.9), second_shape=("cone", 0.9), second_colour=("pink", 0.9), relation=("left", 0.9))
    assert facts_of(two)["relation"] == "left" and facts_of(two)["second_shape"] == "cone"
    hidden = facts_of(two | _told(motion=("hide", 0.9), things=("2", 0.9)))
    assert "second_shape" not in hidden
