"""Captions: every factor in every language, nothing false or hidden, clean text, and the grammar by hand."""

from __future__ import annotations

import itertools
import re

import pytest

from yozora.errors import SceneError
from yozora.world import scene as world
from yozora.world.describe import DETAILS, FACTS, LANGUAGES, describe, describe_with_facts, facts
from yozora.world.sample import sample_scene
from yozora.world.scene import Body, Camera, Motion, Place, Scene, Wall
from yozora.world.words import Noun, load_words

CASES = [*itertools.product(LANGUAGES, DETAILS)]


def body(
    shape: str = "sphere",
    colour: str = "red",
    motion: Motion | None = None,
    at: tuple[float, float] = (0.0, 0.0),
    material: str = "rubber",
    size: str = "large",
) -> Body:
    return Body(shape, colour, material, size, at, 0.0, motion or Motion())


def one(**changes: str) -> Scene:
    """A red rubber ball that moves left over grass, changed in one factor."""
    look = {k: changes[k] for k in ("shape", "colour", "material", "size") if k in changes}
    place = Place(changes.get("ground", "grass"), changes.get("time", "day"), changes.get("weather", "clear"))
    camera = Camera(changes.get("camera", "still"), changes.get("camera_direction", ""), 0.4)
    moving = body(**look, motion=Motion("left", speed=0.5), at=(0.4, 0.0))  # type: ignore[arg-type]
    return Scene(1, (moving,), place, camera, changes.get("style", "realistic"))


def acting(kind: str, direction: str = "", colour_to: str = "") -> Scene:
    """A red ball that does `kind`, with a blue box in its way and a wall where it needs them."""
    if kind in ("roll", "slide", "collide", "hide") and not direction:
        direction = "right"
    height = 1.0 if kind in ("fall", "bounce", "stack") else 0.0
    motion = Motion(kind, direction, 2.0, height, colour_to or ("blue" if kind == "recolour" else ""))
    start = (-1.6, 0.0) if kind in ("collide", "hide") else (0.0, 0.0)
    bodies, walls = [body(motion=motion, at=start)], ()
    if kind == "collide":
        bodies.append(body("box", "blue", at=(0.3, 0.0), size="small"))
    if kind == "stack":
        bodies.append(body("box", "blue", size="huge"))
    if kind == "hide":
        walls = (Wall((0.0, -1.0), (0.7, 0.05, 1.4)),)
    return Scene(2, tuple(bodies), Place("grass"), walls=walls)


def factor_scenes() -> list[Scene]:
    factors = {
        "shape": world.SHAPES,
        "colour": tuple(world.COLOURS),
        "material": world.MATERIALS,
        "size": tuple(world.SIZES),
        "ground": world.GROUNDS,
        "time": world.TIMES,
        "weather": world.WEATHERS,
        "style": world.STYLES,
    }
    scenes = [one(**{factor: value}) for factor, values in factors.items() for value in values]
    scenes += [one(camera=c, camera_direction=d) for c, ds in world.CAMERA_DIRECTIONS.items() for d in ds]
    scenes += [acting(kind) for kind in world.MOTIONS]
    scenes += [acting(kind, d) for kind in ("roll", "slide", "collide", "hide") for d in world.DIRECTIONS]
    scenes += [acting("recolour", colour_to=colour) for colour in world.COLOURS]
    return scenes


def assert_clean(text: str) -> None:
    assert text and text == text.strip()
    for fault in ("  ", " ,", " .", ",,", ",.", "..", "{", "}", "|", "_", "+", "*", "&", "!", "None", "/", ",:", ",;"):
        assert fault not in text, (fault, text)
    assert not text.endswith((",", ";", ":")), text
    assert not text.endswith(".") or not text[0].islower(), text


@pytest.mark.parametrize(("language", "detail"), CASES)
def test_every_factor_is_described(language: str, detail: str) -> None:
    for scene, seed in itertools.product(factor_scenes(), range(3)):
        text, stated = describe_with_facts(scene, language, detail, seed)
        assert_clean(text)
        assert stated.items() <= facts(scene).items()


@pytest.mark.parametrize(("language", "detail"), CASES)
def test_sampled_scenes_are_described(language: str, detail: str) -> None:
    for seed in range(40):
        scene = sample_scene(seed)
        text, stated = describe_with_facts(scene, language, detail, seed)
        assert_clean(text)
        assert stated.items() <= facts(scene).items()
        assert set(stated) <= set(FACTS)


def test_same_seed_same_caption() -> None:
    scene = acting("collide")
    assert describe(scene, "de", "short", 7) == describe(scene, "de", "short", 7)
    assert describe(Scene.from_json(scene.to_json()), "fr", "dense", 3) == describe(scene, "fr", "dense", 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_many_phrasings(language: str) -> None:
    assert len({describe(one(camera="orbit", camera_direction="left"), language, "short", s) for s in range(80)}) >= 30


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", ["film noir", "sketch"])
def test_no_colours_where_none_show(language: str, style: str) -> None:
    table = load_words(language)["colours"]
    forms = {f for c in table if c not in ("white",) for entry in table[c] for f in entry.rstrip("!").split("/")}
    wall = (Wall((0.0, 1.5), (0.5, 0.05, 0.4), "orange"),)
    for colour, detail, seed in itertools.product(world.COLOURS, DETAILS, range(4)):
        scene = Scene(1, (body(colour=colour, motion=Motion("spin", speed=1.0)),), Place("snow"), Camera(), style, wall)
        text, stated = describe_with_facts(scene, language, detail, seed)
        words = re.findall(r"\w+", text.lower())
        assert not [w for w in words if w in forms or (language == "de" and re.sub("e[mnrs]?$", "", w) in forms)], text
        assert "colour" not in stated
        assert facts(scene)["colour"] == "none"


def test_recolour_without_colours_is_told_by_its_tone() -> None:
    bodies = (body(colour="white", motion=Motion("recolour", colour_to="brown")),)
    text = describe(Scene(1, bodies, style="film noir"), "en", "short")
    assert re.search(r"darke(r|ns|ning)", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_body_that_never_shows_is_not_told(language: str) -> None:
    cone = {"en": "cone", "de": "Kegel", "fr": "cône", "es": "cono"}[language]
    shown = body(motion=Motion("bounce", height=1.0), at=(-1.2, 0.0))
    behind = body("cone", "green", at=(0.8, 1.5), size="tiny")
    scene = Scene(1, (shown, behind), Place("sand"), walls=(Wall((0.7, 0.2), (0.9, 0.05, 1.2)),))
    assert facts(scene)["count"] == "1"
    for detail, seed in itertools.product(DETAILS, range(20)):
        assert cone not in describe(scene, language, detail, seed)
    open_scene = Scene(1, (shown, behind), Place("sand"))
    assert facts(open_scene)["count"] == "2"
    assert cone in describe(open_scene, language, "dense")


def test_no_time_of_day_in_space_or_the_studio() -> None:
    for ground, detail, seed in itertools.product(("space", "studio"), DETAILS, range(20)):
        text, stated = describe_with_facts(one(ground=ground, time="night"), "en", detail, seed)
        assert "night" not in text.lower() and "time" not in stated


def test_a_struck_body_is_not_said_to_stand_still() -> None:
    scene = acting("collide")
    for detail, seed in itertools.product(DETAILS, range(20)):
        text = describe(scene, "en", detail, seed)
        assert not re.search(r"(?<!camera stays )still|motionless|in place", text), text
        assert re.search(r"blue (rubber )?(box|cube|crate|block)|(box|cube|crate|block) made of rubber", text), text


def test_a_short_caption_names_colour_shape_and_direction() -> None:
    said = [describe_with_facts(one(), "en", "short", seed) for seed in range(50)]
    assert all(re.search(r"\bred\b.*(ball|sphere|orb)", text, re.IGNORECASE) for text, _ in said)
    assert all(re.search(r"left", text) for text, _ in said)
    assert all({"shape", "colour", "motion", "direction"} <= set(stated) for _, stated in said)
    assert 5 < sum("size" in stated for _, stated in said) < 45  # secondary facts come and go
    assert not any("green grass" in text for text, _ in said)


def test_stated_facts_match_the_text() -> None:
    for seed in range(60):
        text, stated = describe_with_facts(one(time="night", camera="zoom", camera_direction="in"), "en", "short", seed)
        assert ("night" in text.lower()) == ("time" in stated)
        assert ("zoom" in text.lower()) == ("camera" in stated)
        assert bool(re.search(r"grass|meadow|lawn", text)) == ("ground" in stated)
        assert bool(re.search(r"large|big", text)) == ("size" in stated)


def test_lengths() -> None:
    scenes = [sample_scene(seed) for seed in range(120)]
    for detail, most in (("short", 25), ("dense", 110)):
        words = [len(describe(scene, "en", detail, n).split()) for n, scene in enumerate(scenes)]
        assert sum(words) / len(words) < most


def test_timed_events_follow_the_physics() -> None:
    text = describe(acting("fall"), "en", "timed", 1)  # 1 m takes 0.45 s
    assert re.match(r"0\.0–0\.5 s: .*(falls|drops).*; 0\.5 s: .*(hits|touches) the grass", text), text
    text = describe(acting("hide"), "de", "timed", 1)
    times = [float(t.replace(",", ".")) for t in re.findall(r"\d,\d", text)]
    assert times == sorted(times) and "hinter" in text and re.search(r"hervor|auf\.$", text), text


def test_unknown_language_and_detail() -> None:
    with pytest.raises(SceneError, match="known languages: en, de, fr, es"):
        describe(one(), "ja")
    with pytest.raises(SceneError, match="known: short, dense, timed"):
        describe(one(), "en", "long")


def test_an_empty_scene_has_captions() -> None:
    for language, detail in CASES:
        assert_clean(describe(Scene(0, ()), language, detail))
    assert facts(Scene(0, ()))["count"] == "0"


NOUNS = [
    ("en", "ball", ("red",), "a", "", "a red ball"),
    ("en", "ball", ("orange",), "a", "", "an orange ball"),
    ("en", "cube", ("enormous", "_ made of rubber"), "a", "", "an enormous cube made of rubber"),
    ("en", "cube", ("blue",), "another", "", "another blue cube"),
    ("de", "Ball m", ("rot",), "a", "", "ein roter Ball"),
    ("de", "Kugel f", ("rot",), "a", "", "eine rote Kugel"),
    ("de", "Würfel m", ("rot",), "a", "acc", "einen roten Würfel"),
    ("de", "Würfel m", ("klein", "rosa!"), "the", "dat", "dem kleinen rosa Würfel"),
    ("de", "Kugel f", ("groß", "blau", "_ aus Metall"), "a", "dat", "einer großen blauen Kugel aus Metall"),
    ("de", "Ball m", ("gelb",), "the", "von", "vom gelben Ball"),
    ("de", "Kegel m", ("grün",), "another", "", "ein weiterer grüner Kegel"),
    ("de", "Ball m", ("rot",), "", "", "roter Ball"),
    ("fr", "balle f", ("rouge",), "a", "", "une balle rouge"),
    ("fr", "cube m", ("bleu/bleue",), "a", "", "un cube bleu"),
    ("fr", "sphère f", ("petit/petite _", "vert/verte"), "a", "", "une petite sphère verte"),
    ("fr", "anneau m", ("violet/violette",), "the", "", "l'anneau violet"),
    ("fr", "anneau m", ("violet/violette",), "the", "de", "de l'anneau violet"),
    ("fr", "cube m", ("blanc/blanche",), "the", "de", "du cube blanc"),
    ("fr", "balle f", ("énorme _", "blanc/blanche"), "the", "de", "de l'énorme balle blanche"),
    ("es", "pelota f", ("rojo/roja",), "a", "", "una pelota roja"),
    ("es", "cubo m", ("azul",), "a", "", "un cubo azul"),
    ("es", "cubo m", ("gran _", "amarillo/amarilla"), "the", "de", "del gran cubo amarillo"),
    ("es", "caja f", ("pequeño/pequeña", "naranja"), "another", "", "otra caja pequeña naranja"),
]


@pytest.mark.parametrize(("language", "noun", "adjectives", "determiner", "case", "expected"), NOUNS)
def test_noun_phrases(
    language: str, noun: str, adjectives: tuple[str, ...], determiner: str, case: str, expected: str
) -> None:
    phrase = load_words(language).noun(noun, adjectives, determiner)
    assert str(getattr(phrase, case) if case else phrase) == expected


def test_clauses() -> None:
    german, ball = load_words("de"), Noun("de", "Ball", "m", ("rot",))
    assert german.clause(ball, "fällt +herunter", "im Gras") == "im Gras fällt ein roter Ball herunter"
    assert german.clause(ball, "bewegt sich", "im Gras") == "im Gras bewegt sich ein roter Ball"
    assert german.subordinate("die Kamera", "schwenkt nach links") == "die Kamera nach links schwenkt"
    assert german.relative(ball, "fällt +herunter & rollt weit +weg") == (
        "ein roter Ball, der herunterfällt und weit wegrollt,"
    )
    english = load_words("en")
    orb = Noun("en", "ball", "n", ("red",))
    assert english.clause(orb, "rolls|rolling left", "on grass") == "on grass, a red ball rolls left"
    assert english.participle(orb, "is_rolling|rolling left") == "a red ball rolling left"
    assert english.series(["a", "b", "c"]) == "a, b and c"
    assert load_words("fr").participle(Noun("fr", "balle", "f"), "se_déplace|se_déplaçant") == "une balle se déplaçant"
