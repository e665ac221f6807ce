"""Captions of scenes of which only some facts are known: read off a prompt, or off a clip.

`tell_facts` says exactly these in the words of captions, and is silent about everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from yozora.world.scene import CAMERA_DIRECTIONS, DIRECTIONS, Body, Camera, Motion, Place, Scene, Wall
from yozora.world.words.grammar import Noun, load_words, tidy
from yozora.world.words.seen import COLOURLESS_STYLES, Seen
from yozora.world.words.teller import Teller, agree_inside, capital

SECOND = "second_"
UNKNOWN = {"shape": "sphere", "colour": "red", "size": "large", "material": "matte", "motion": "still"}
UNKNOWN |= {"camera": "still", "ground": "studio", "time": "day", "weather": "clear", "style": "realistic"}
GOING = ("roll", "slide", "collide", "hide")  # motions that may say where to
APART = {"left": (-2.0, 0.0), "right": (2.0, 0.0), "behind": (0.0, 2.0), "front": (0.0, -2.0)}
WALL = Wall((0.0, 0.0), (1.0, 0.1, 1.0))  # what something hides behind: no more of it is known
LEADS = (", moving {dir},", ", moving {dir}", " en allant {dir}", " mientras va {dir}")  # nothing without a direction


def tell_facts(known: Mapping[str, str], language: str = "en", detail: str = "short", seed: int | None = None) -> str:
    """A short or dense caption that states these facts (named as in `yozora.world.describe.FACTS`) and no others.

    At least a shape is needed. `seed` chooses among phrasings; without one it is always the first, plainest words.
    Raises SceneError for a value that is none.
    """
    teller = FactTeller(known, language, seed)
    return teller.told_short() if detail == "short" else teller.told_dense()


class FactTeller(Teller):
    """Tells what is known of a scene, in the plainest words where there is no `seed`."""

    def __init__(self, known: Mapping[str, str], language: str, seed: int | None = None, duration: float = 2.0) -> None:
        known = dict(known)
        direction = known.get("direction", "")
        if "motion" not in known and direction in DIRECTIONS:
            known["motion"] = direction  # it goes there somehow
        self.known, self._plainly, self._aimless = known, seed is None, False
        super().__init__(_scene_of(known, duration), load_words(language), seed or 0, "known")

    def pick(self, options: Sequence[str]) -> str:
        """The first one, or any; none that says what colour changes, or where to, where that is not known."""
        if "colour" not in self.known:
            options = [option for option in options if "{from}" not in option]
        if self._aimless and any("{wall" in option for option in options):
            options = [_without_leads(option) for option in options if "{dir} {at}," not in option]
        return options[0] if self._plainly else super().pick(options)

    def told_short(self) -> str:
        """One sentence."""
        acting = [n for n in self.seen.visible if self._moves(n)]
        named = [n for n in self.seen.visible if n not in acting and n not in self.seen.partner.values()]
        where = self._around()
        if acting:
            text = self._acts(acting, named, where, "")
        else:
            text = tidy(" ".join([self.words.series([str(self.body(n, "full")) for n in named]), *where]))
        if "camera" in self.known:
            subject, filming = self.pick(self.words["camera_subject"]), self._camera_phrase()
            text = self.pick(self.words["while"][:2]).format(
                main=text,
                cam=self.words.subordinate(subject, filming),
                cam_main=self.words.clause(subject, filming),
            )
        if "style" in self.known:
            text = f"{text}, {self.pick(self.words['styles'][self.seen.scene.style])}"
        return _sentence(text)

    def told_dense(self) -> str:
        """Sentence by sentence: things, light, style, camera."""
        main, where = self.body(0, "full"), self.place() if "ground" in self.known else ""
        if self._moves(0):
            sentences = [self.words.clause(main, self.predicate(0, main, where, look="full"))]
        else:
            sentences = [f"{main} {where}"]
        for index in self.seen.visible[1:]:
            if index not in self._introduced:
                sentences.append(self._other(index))
        place, style = self.seen.scene.place, self.seen.scene.style
        for name, value in (("time", place.time), ("weather", place.weather), ("style", style)):
            if name in self.known:
                sentences.append(self.pick(self.words[f"{name}_sentences"][value]))
        if "camera" in self.known:
            sentences.append(self.camera_clause())
        return " ".join(map(_sentence, sentences))

    def predicate(self, index: int, subject: Noun, at: str = "", onto: bool = False, look: str = "some") -> str:
        """Without saying what it falls onto, where that is not known; with the colour that it turns meanwhile."""
        self._aimless = not self.seen.direction(index)
        told = super().predicate(index, subject, at, onto and "ground" in self.known, look)
        if index or self.seen.motion(index) == "recolour" or not self._turns():
            return told
        turns = self.pick(self.words["motions"]["recolour"]).format(at="", **self._recolour_slots(index, subject))
        joint = "&" if self.words.language == "de" else self.words["and"]
        return tidy(f"{told} {joint} {turns}")

    def _turns(self) -> bool:
        """Whether it is known what colour the first thing turns, in a style that shows it."""
        return "colour_to" in self.known and self.seen.coloured

    def wall(self, index: int) -> Noun:
        """Nothing is known of it but that it is there."""
        return self.words.noun(self.pick(self.words["nouns"]["wall"]))

    def doing(self, index: int) -> str:
        """What a body does, as a sentence of its own."""
        name = self.body(index, "name", "the")
        return _sentence(self.words.clause(name, self.predicate(index, name)))

    def resting(self, index: int) -> str:
        """That a body stands still, for as long as it does."""
        name = self.body(index, "name", "the")
        rest = agree_inside(self.pick(self.words["events"]["rest"]), name.gender)
        return _sentence(self.words.clause(name, tidy(rest.format(at=""))))

    def body(self, index: int, look: str, determiner: str = "") -> Noun:
        """Without the adjectives of what is not known."""
        noun = super().body(index, "name" if look == "name" or determiner == "the" else "full", determiner)
        if noun.determiner == "the":
            return noun if self._has(index, "colour") else replace(noun, adjectives=())
        body, unknown = self.seen.scene.bodies[index], set[str]()
        for name in ("size", "material", "colour"):
            if not self._has(index, name):
                unknown |= set(self.words[f"{name}s"][getattr(body, name)])
        return replace(noun, adjectives=tuple(a for a in noun.adjectives if a not in unknown))

    def _has(self, index: int, name: str) -> bool:
        return (SECOND if index else "") + name in self.known

    def _moves(self, index: int) -> bool:
        """Whether it is known what a body does; what lies still does so, too."""
        return self._has(index, "motion")

    def _around(self) -> list[str]:
        """Where and when, as far as that is known."""
        told = [self.place()] if "ground" in self.known else []
        told += [self._time()] if "time" in self.known else []
        told += [self._weather()] if "weather" in self.known else []
        return told[::-1] if self.words.language == "de" else told  # time comes before place

    def _other(self, index: int) -> str:
        """A further body: where it is from the first one, and what it does."""
        subject = self.body(index, "full")
        at = self._relation(self.known["relation"], 0) if "relation" in self.known else ""
        if self._moves(index):
            return self.words.clause(subject, self.predicate(index, subject, look="full"), at)
        stands = self.words["relation_verbs"]["still" if at else "there"][0].replace("{at}", at)
        return self.words.clause(subject, agree_inside(stands, subject.gender))

    def _camera_key(self, table: str) -> str:
        """With its direction only where that is known; one that moves on rails needs one."""
        camera = self.seen.scene.camera
        directed = "camera_direction" in self.known or not self.words[table].get(camera.kind)
        return self.pick(
            self.words[table].get(f"{camera.kind} {camera.direction}" if directed else camera.kind, ())
            or self.words[table][camera.kind]
        )


def _without_leads(option: str) -> str:
    """A phrase without those of its words that only say where to."""
    for lead in LEADS:
        option = option.replace(lead, "")
    return option


def _scene_of(known: Mapping[str, str], duration: float) -> Seen:
    """A scene in which the facts are so, with anything for what is not known."""
    said = UNKNOWN | dict(known)
    bodies = [_body(known, "")]
    if f"{SECOND}shape" in known:
        bodies.append(replace(_body(known, SECOND), position=APART.get(known.get("relation", ""), (2.0, 0.0))))
    camera, asked = said["camera"], known.get("camera_direction", "")
    directions = CAMERA_DIRECTIONS.get(camera, ("",))
    filmed = Camera(camera, asked if asked in directions else directions[0])
    place = Place(said["ground"], said["time"], said["weather"])
    hidden = {index: 0 for index, body in enumerate(bodies) if body.motion.kind == "hide"}
    walls = (WALL,) if hidden else ()
    scene = Scene(0, tuple(bodies), place, filmed, said["style"], walls=walls, duration=duration)
    meets = len(bodies) > 1 and bodies[0].motion.kind in ("collide", "stack")
    return Seen(scene, tuple(range(len(bodies))), {0: 1} if meets else {}, {}, hidden)


def _body(known: Mapping[str, str], which: str) -> Body:
    look = {name: known.get(which + name, UNKNOWN[name]) for name in ("shape", "colour", "material", "size")}
    kind, direction = known.get(f"{which}motion", UNKNOWN["motion"]), known.get(f"{which}direction", "")
    becomes = known.get("colour_to", "") if not which else ""
    if kind == "recolour" and (not becomes or known.get("style") in COLOURLESS_STYLES):
        becomes = becomes or next(colour for colour in ("blue", "red") if colour != look["colour"])
    motion = Motion(kind, direction if kind in GOING else "", colour_to=becomes)
    return Body(look["shape"], look["colour"], look["material"], look["size"], (0.0, 0.0), motion=motion)


def _sentence(text: str) -> str:
    return capital(tidy(text)).rstrip(",.") + "."
