"""How a caption is put together: what to tell, in which order, in which words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from yozora.world.words.grammar import Noun, Words, agree, tidy
from yozora.world.words.seen import Seen, labels


class Teller:
    """Tells one scene once: it remembers what has been named (a ball stays a ball) and which facts it has stated."""

    def __init__(self, seen: Seen, words: Words, seed: int, detail: str) -> None:
        self.seen, self.words = seen, words
        self.random = random.Random(f"{seed}/{words.language}/{detail}")
        self.stated: dict[str, str] = {}
        self._labels = labels(seen)
        self._nouns: dict[int, str] = {}
        self._colours: dict[int, str] = {}
        self._introduced: dict[int, str] = {}
        self._walls: dict[int, Noun] = {}

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, options: Sequence[str]) -> str:
        return self.random.choice(options)

    def state(self, *names: str) -> None:
        """Notes that the caption states these facts (those that there are)."""
        self.stated.update({n: self._labels[n] for n in names if self._labels[n] != "none"})

    def short(self) -> str:
        """One sentence, or a headline: what moves and how, often the place and the camera."""
        seen, place = self.seen, self.seen.scene.place
        where = [self.place()] if self.chance(0.78) else []
        if seen.outdoors and self.chance(0.15 if place.time == "day" else 0.6):
            where.append(self._time())
        if self._has_weather() and self.chance(0.08 if place.weather == "clear" else 0.7):
            where.append(self._weather())
        if self.words.language == "de":  # time comes before place
            where.reverse()
        style = self.chance(0.08 if seen.scene.style == "realistic" else 0.85)
        camera = self.chance(0.1 if seen.scene.camera.kind == "still" else 0.75)
        if self.seen.visible and self.chance(0.3):
            return self._finish(self._headline(where, style, camera))
        return self._finish(self._sentence(where, style, camera))

    def dense(self) -> str:
        """Several sentences: every body with its look, place and motion, then the light, the camera and the style."""
        seen, main = self.seen, self.seen.main
        sentences: list[str] = []
        if len(seen.visible) > 1 and self.chance(0.4):
            sentences.append(self.pick(self.words["count_sentences"]).format(count=self._count()))
        if main is None:
            sentences.append(self.camera_clause())
        else:
            sentences.append(self._main_sentence(main))
            sentences += self._other_sentences(main)
            self.state("count")
        sentences += self._wall_sentences()
        closing = [self._light_sentences()]
        if main is not None and (seen.scene.camera.kind != "still" or self.chance(0.5)):
            closing.append([self.camera_clause()])
        if seen.scene.style != "realistic" or self.chance(0.3):
            self.state("style")
            style = [self.pick(self.words["style_sentences"][seen.scene.style])]
            closing.insert(self.random.randrange(len(closing) + 1), style)
        sentences += [s for group in closing for s in group]
        return " ".join(capital(tidy(s)).rstrip(".") + "." for s in sentences)

    # noun phrases

    def body(self, index: int, look: str, determiner: str = "") -> Noun:
        """A body as a noun phrase. `look`: "full" (all that shows), "some" (colour, at times more), "name" (colour)."""
        body, words = self.seen.scene.bodies[index], self.words
        noun = self._nouns.setdefault(index, self.pick(words["nouns"][body.shape]))
        full = 1.0 if look == "full" else 0.0 if look == "name" else 0.3
        size = [self.pick(words["sizes"][body.size])] if self.chance(full) else []
        material = [self.pick(words["materials"][body.material])] if self.chance(full) else []
        colour = [self._colour(index)] if self.seen.coloured else []
        first = [m for m in material if m.endswith(" *")]
        adjectives = (*size, *first, *colour, *(m for m in material if m not in first))
        self._state_look(index, bool(size), bool(material))
        phrase = words.noun(noun, adjectives, determiner or "a")
        if not determiner and index in self._introduced:
            return words.noun(noun, tuple(colour), "the")
        if not determiner and str(phrase) in self._introduced.values():
            phrase = words.noun(noun, adjectives, "another")
        self._introduced[index] = str(words.noun(noun, adjectives))
        return phrase

    def wall(self, index: int) -> Noun:
        """A wall as a noun phrase, "the wall" when it has been named."""
        wall, words = self.seen.scene.walls[index], self.words
        if index in self._walls:
            return words.noun(self._nouns[-1 - index], (), "the")
        self._nouns[-1 - index] = self.pick(words["nouns"]["wall"])
        colour = (self.pick(words["colours"][wall.colour]),) if self.seen.coloured and self.chance(0.7) else ()
        phrase = words.noun(self._nouns[-1 - index], colour)
        if phrase in self._walls.values():
            phrase = words.noun(self._nouns[-1 - index], colour, "another")
        self._walls[index] = phrase
        return phrase

    def _colour(self, index: int) -> str:
        colour = self.seen.scene.bodies[index].colour
        return self._colours.setdefault(index, self.pick(self.words["colours"][colour]))

    def _state_look(self, index: int, size: bool, material: bool) -> None:
        for prefix, who in (("", self.seen.main), ("second_", self.seen.second)):
            if who == index:
                told = [("shape", True), ("colour", True), ("size", size), ("material", material)]
                self.state(*(prefix + name for name, said in told if said))

    # what bodies do

    def predicate(self, index: int, subject: Noun, at: str = "", onto: bool = False, look: str = "some") -> str:
        """What a body does, as a verb phrase with its slots filled; `onto`: it may land "on the grass"."""
        seen, kind = self.seen, self.seen.motion(index)
        options = [p for p in self.words["motions"][kind] if ("{onto}" in p) == onto or kind != "fall"]
        if kind == "fall" and not onto and seen.scene.place.ground not in ("water", "space"):
            options += self.words["motions"]["fall_ground"]
        if len(at.split()) > 5:  # a long "where" between a verb and its direction reads badly
            options = [p for p in options if "{at} {dir}" not in p] or options
        slots: dict[str, object] = {"at": at}
        if onto and kind == "fall":
            slots["onto"] = self.landing()
        if direction := seen.direction(index):
            slots["dir"] = self.pick(self.words["directions"][direction])
        elif any("{dir}" in p for p in options):
            slots["dir"] = ""
        if index in seen.partner:
            slots["target"] = self.body(seen.partner[index], look)
        if index in seen.wall:
            slots["wall"] = self.wall(seen.wall[index])
        if kind == "recolour":
            slots |= self._recolour_slots(index, subject)
        phrase = agree_inside(self.pick(options), subject.gender)
        self.state_motion(index, "{dir}" in phrase)
        return tidy(phrase.format(**slots))

    def _recolour_slots(self, index: int, subject: Noun) -> dict[str, object]:
        body, names = self.seen.scene.bodies[index], self.words["colour_names"]
        becomes = agree(self.pick(self.words["colours"][body.motion.colour_to]), subject.gender)
        start = self.words.tables.get("from_names", names)[body.colour]
        return {"from": start, "to": names[body.motion.colour_to], "to_adj": becomes}

    def state_motion(self, index: int, direction: bool) -> None:
        for prefix, who in (("", self.seen.main), ("second_", self.seen.second)):
            if who == index:
                self.state(f"{prefix}motion", *([f"{prefix}direction"] if direction else []))
        if index == self.seen.main:
            self.state("colour_to")

    # where, when, how filmed

    def place(self) -> str:
        self.state("ground")
        return self.pick(self.words["grounds"][self.seen.scene.place.ground])

    def landing(self) -> str:
        """Where something falls to: "onto the grass"."""
        self.state("ground")
        return self.pick(self.words["onto"][self.seen.scene.place.ground])

    def _time(self) -> str:
        self.state("time")
        return self.pick(self.words["times"][self.seen.scene.place.time])

    def _weather(self) -> str:
        self.state("weather")
        return self.pick(self.words["weathers"][self.seen.scene.place.weather])

    def _count(self) -> str:
        self.state("count")
        count = str(len(self.seen.visible))
        return self.words["counts"].get(count, count)

    def _has_weather(self) -> bool:
        return self.seen.outdoors or self.seen.scene.place.weather != "clear"

    def _camera_key(self, table: str) -> str:
        camera = self.seen.scene.camera
        keys = [key for key in (f"{camera.kind} {camera.direction}".strip(), camera.kind) if self.words[table].get(key)]
        key = keys[0] if self.chance(0.75) else keys[-1]
        self.state("camera", *(["camera_direction"] if " " in key else []))
        return self.pick(self.words[table][key])

    def _camera_phrase(self) -> str:
        return self._camera_key("cameras")

    def camera_clause(self) -> str:
        """What the camera does, as a sentence of its own."""
        return self.words.clause(self.pick(self.words["camera_subject"]), self._camera_phrase())

    # short captions

    def _tellable(self) -> tuple[list[int], list[int]]:
        """Which bodies a short caption tells with their motion, and which it only names."""
        seen = self.seen
        movers = [i for i in seen.visible if seen.motion(i) != "still"]
        acting = movers[:2] or list(seen.visible[:1])
        targets = {seen.partner[i] for i in acting if i in seen.partner}
        acting = [i for i in acting if i not in targets or seen.motion(i) != "still"]
        named = [i for i in seen.visible if i not in acting and i not in targets]
        still = [i for i in named if i not in movers]
        if still and not self.chance(0.7 if len(named) < 3 else 0.45):
            named = [i for i in named if i in movers]
        if len(acting) + len(targets | set(named)) == len(seen.visible):
            self.state("count")
        return acting, named

    def _headline(self, where: list[str], style: bool, camera: bool) -> str:
        """ "Orbiting shot: a red ball bouncing on a meadow"."""
        heads = []
        if style:
            self.state("style")
            heads.append(self.pick(self.words["style_labels"][self.seen.scene.style]))
        if camera:
            heads.append(self._camera_key("camera_labels"))
        if len(heads) > 1:
            heads[1] = heads[1] if self.words.language == "de" else heads[1][0].lower() + heads[1][1:]
        acting, named = self._tellable()
        bare, at = self.chance(0.25), " ".join(where)
        items = []
        for index in acting:
            subject = self.body(index, "some")
            if bare and subject.determiner == "a":
                subject = Noun(subject.language, subject.word, subject.gender, subject.adjectives, "")
            form = self.words.participle if self.chance(0.75) else self.words.relative
            items.append(form(subject, self.predicate(index, subject, at)))
            at = ""
        items += [str(self.body(index, "some")) for index in named]
        separator = " : " if self.words.language == "fr" else ": "
        colon = separator if heads else ""
        return f"{', '.join(heads)}{colon}{self.words.series(items)}{' ' + at if at else ''}"

    def _sentence(self, where: list[str], style: bool, camera: bool) -> str:
        """ "On the grass, a red ball bounces while the camera orbits"."""
        acting, named = self._tellable()
        filming = self._camera_phrase() if camera else ""
        front, ending = "", ""
        if style:
            self.state("style")
            ending = self.pick(self.words["styles"][self.seen.scene.style])
        if filming and self.chance(0.12):
            front = self.pick(self.words["while_front"]).format(cam=self._while(filming))
            filming = ""
        elif ending and (filming or self.chance(0.35)):
            front, ending = ending, ""
        elif where and self.chance(0.3):
            front = where.pop(self.random.randrange(len(where)))
        text = self._acts(acting, named, where, front)
        if filming:
            subject = self.pick(self.words["camera_subject"])
            text = self.pick(self.words["while"]).format(
                main=text,
                cam=self._while(filming),
                cam_main=self.words.clause(subject, filming),
                cam_part=self.words.participle(subject, filming),
            )
        return f"{text}, {ending}" if ending else text

    def _while(self, filming: str) -> str:
        return self.words.subordinate(self.pick(self.words["camera_subject"]), filming)

    def _acts(self, acting: list[int], named: list[int], where: list[str], front: str) -> str:
        """The clauses of a short sentence, joined; the first one carries where and when."""
        if not acting:
            show = self.pick(self.words["still_all"])
            return tidy(f"{show} {' '.join(where)}")
        onto = self.seen.motion(acting[0]) == "fall" and "ground" not in self.stated and self.chance(0.5)
        clauses = []
        for index in acting:
            subject = self.body(index, "some")
            predicate = self.predicate(index, subject, " ".join(where), onto)
            clauses.append(self.words.clause(subject, predicate, front))
            where, front, onto = [], "", False
        if named:
            nouns = [self.body(index, "some") for index in named]
            forms = [n.dat for n in nouns] if "mit {list}" in self.words["with"][0] else [str(n) for n in nouns]
            clauses[-1] += ", " + self.pick(self.words["with"]).format(list=self.words.series(forms))
        return self.words.series(clauses)

    # dense captions

    def _main_sentence(self, main: int) -> str:
        subject = self.body(main, "full")
        if self.seen.motion(main) == "fall" and self.chance(0.5):
            return self.words.clause(subject, self.predicate(main, subject, onto=True, look="full"))
        where = self.place()
        front = where if self.chance(0.3) else ""
        if self.seen.motion(main) == "still" and main in self.seen.struck:
            predicate = self.pick(self.words["relation_verbs"]["still"]).format(at="" if front else where)
            return self.words.clause(subject, agree_inside(predicate, subject.gender), front)
        predicate = self.predicate(main, subject, "" if front else where, look="full")
        return self.words.clause(subject, predicate, front)

    def _other_sentences(self, main: int) -> list[str]:
        """One sentence for each further body: where it is from the main one, its look, its motion."""
        seen, sentences = self.seen, []
        for index in seen.visible:
            moves = seen.motion(index) != "still"
            if index == main or (index in self._introduced and not moves):
                continue
            known = index in self._introduced
            relation = "" if known or seen.partner.get(index) == main else seen.relation(index, main)
            at = self._relation(relation, main) if relation else ""
            if relation and index == seen.second:
                self.state("relation")
            subject = self.body(index, "full")
            if not moves:
                predicate = self.pick(self.words["relation_verbs"]["still" if at else "there"])
                if seen.rests(index) and (self.chance(0.4) or not at):
                    predicate = self.predicate(index, subject, look="full")
                elif at and self.chance(0.6):
                    predicate, at = predicate.replace("{at}", at), ""
                predicate = agree_inside(predicate, subject.gender).replace("{at}", "")
            else:
                predicate = self.predicate(index, subject, look="full")
            sentences.append(self.words.clause(subject, predicate, at))
        return sentences

    def _relation(self, relation: str, other: int) -> str:
        if self.chance(0.4):
            return self.pick(self.words["relations_it"][relation])
        return self.pick(self.words["relations"][relation]).format(ref=self.body(other, "name", "the"))

    def _wall_sentences(self) -> list[str]:
        left = [i for i in range(len(self.seen.scene.walls)) if i not in self._walls]
        return [self.words.clause(self.wall(i), self.pick(self.words["wall_sentences"]["here"])) for i in left]

    def _light_sentences(self) -> list[str]:
        place, sentences = self.seen.scene.place, []
        if self.seen.outdoors:
            self.state("time")
            sentences.append(self.pick(self.words["time_sentences"][place.time]))
        if self._has_weather():
            self.state("weather")
            sentences.append(self.pick(self.words["weather_sentences"][place.weather]))
        return sentences

    def _finish(self, text: str) -> str:
        """Sentence case and a full stop, or neither, as people type."""
        text = tidy(text).rstrip(",")
        return capital(text) + "." if self.chance(0.6) else text


def capital(text: str) -> str:
    """The text with a capital letter first."""
    return text[:1].upper() + text[1:]


def agree_inside(phrase: str, gender: str) -> str:
    """Chooses among `lui-même/elle-même` in a phrase."""
    return " ".join(agree(word, gender) if "/" in word else word for word in phrase.split(" "))
