"""Captions with seconds: what happens when, read off the simulated motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yozora.world.simulate import RESTITUTION
from yozora.world.travel import GRAVITY
from yozora.world.words.grammar import tidy
from yozora.world.words.seen import hidden_span
from yozora.world.words.teller import Teller, agree_inside, capital

_MOST_BOUNCES = 3


@dataclass(frozen=True)
class _Event:
    """From `start` to `end` seconds (equal for a moment) body `body` does `phrase`: a key of `events`, or "" for all
    of its motion."""

    start: float
    end: float
    body: int
    phrase: str = ""


def timed(teller: Teller) -> str:
    """ "0.0–0.6 s: a red ball falls; 0.6 s: the ball hits the ground; …", in the order of the starts."""
    seen, words = teller.seen, teller.words
    events = [event for body in seen.visible for event in _events(teller, body)]
    events.sort(key=lambda event: (event.start, seen.visible.index(event.body)))
    lines = [_when(teller, event.start, event.end) + _clause(teller, event, n == 0) for n, event in enumerate(events)]
    if seen.scene.camera.kind != "still" or not lines:
        lines.append(_when(teller, 0.0, seen.scene.duration) + teller.camera_clause())
    if seen.visible:
        teller.state("count")
    head = ""
    if seen.scene.style != "realistic":
        teller.state("style")
        head = teller.pick(words["style_labels"][seen.scene.style]) + ". "
    return head + capital(tidy((" ; " if words.language == "fr" else "; ").join(lines))).rstrip(".") + "."


def _events(teller: Teller, body: int) -> list[_Event]:
    seen, end = teller.seen, teller.seen.scene.duration
    motion, kind = seen.scene.bodies[body].motion, seen.motion(body)
    if kind == "still":
        if body in seen.struck or body in seen.partner.values():
            return []
        return [_Event(0.0, end, body)]
    start = min(motion.start, end)
    waits = [_Event(0.0, start, body, "rest")] if start >= 0.1 and kind not in RESTITUTION else []
    if kind in RESTITUTION:
        return _drops(teller, body, start, end)
    if kind == "hide" and (span := hidden_span(seen, body)):
        return [*waits, _Event(start, span[0], body, "go"), _Event(*span, body, "vanish")] + (
            [_Event(span[1], span[1], body, "appear")] if span[1] < end else []
        )
    if kind == "collide" and start < seen.struck[body][0]:
        moment = seen.struck[body][0]
        return [*waits, _Event(start, moment, body, "go"), _Event(moment, moment, body, "hit")]
    return [*waits, _Event(start, end, body)]


def _drops(teller: Teller, body: int, start: float, end: float) -> list[_Event]:
    """A drop and the moments of its bounces, by the formula that `simulate` follows."""
    motion, kind = teller.seen.scene.bodies[body].motion, teller.seen.motion(body)
    speed = float(np.sqrt(2 * GRAVITY * max(motion.height, 0.0)))
    moment, moments = start + speed / GRAVITY, []
    while moment < end and len(moments) < (_MOST_BOUNCES if kind == "bounce" else 1) and motion.height > 0:
        moments.append(moment)
        speed *= RESTITUTION[kind]
        moment += 2 * speed / GRAVITY
    first = _Event(start, moments[0] if moments else end, body, "fall")
    names = ["land" if body in teller.seen.partner else "ground", *["ground_again"] * len(moments)]
    return [first, *(_Event(m, m, body, name) for m, name in zip(moments, names, strict=False))]


def _clause(teller: Teller, event: _Event, first: bool) -> str:
    seen, words, body = teller.seen, teller.words, event.body
    at = (teller.landing() if event.phrase == "fall" and body not in seen.partner else teller.place()) if first else ""
    subject = teller.body(body, "some")
    if not event.phrase:
        return words.clause(subject, teller.predicate(body, subject, at))
    phrase = agree_inside(teller.pick(words["events"][event.phrase]), subject.gender)
    slots: dict[str, object] = {"at": at, "dir": ""}
    if "{floor}" in phrase:
        ground = seen.scene.place.ground
        slots["floor"] = words["floors"][ground]
        if ground in ("grass", "sand", "snow", "water"):
            teller.state("ground")
    if direction := seen.direction(body):
        slots["dir"] = teller.pick(words["directions"][direction])
    if "{target" in phrase:
        slots["target"] = teller.body(seen.partner[body], "some")
    if "{wall" in phrase:
        slots["wall"] = teller.wall(seen.wall[body])
    teller.state_motion(body, "{dir}" in phrase and event.phrase != "rest")
    return words.clause(subject, tidy(phrase.format(**slots)))


def _when(teller: Teller, start: float, end: float) -> str:
    first, last = teller.words.seconds(start), teller.words.seconds(end)
    colon = " : " if teller.words.language == "fr" else ": "
    return f"{first} s{colon}" if first == last else f"{first}–{last} s{colon}"
