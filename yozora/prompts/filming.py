"""What a prompt says of the camera: what it does, behind that word, or the name of a shot."""

from __future__ import annotations

from yozora.prompts.stems import apart, phrases, stem, stems_in
from yozora.prompts.tokens import Found, Tokens, positions

CAMERA = {"en": "camera", "de": "kamera", "fr": "camera", "es": "camara"}
REACH = 7  # words behind "camera" that say what it does
VERB_LAST = {"de": "während wobei indem dass wenn"}  # behind these, a thing may stand before what the camera does
AHEAD = 4  # words before "camera" among which one of these may be


def filmed(tokens: Tokens) -> dict[str, str]:
    """The facts "camera" and "camera_direction", as far as they are told; their words are then read."""
    language, eye = tokens.language, stem(CAMERA[tokens.language], tokens.language)
    things, found = [at for at, word in enumerate(tokens.stems) if (word,) in _shapes(language)], list[Found]()
    for at in (at for at, word in enumerate(tokens.stems) if word == eye and tokens.free[at]):
        end = min(at + 1 + REACH, len(tokens.stems))
        before = end if _verb_last(tokens, at) else min([end, *(thing for thing in things if thing > at)])
        told = _apart(tokens, at + 1, end)
        told += tokens.take(phrases(language, "cameras"), 1, slice(at + 1, before))
        tokens.free[at] = not told
        found += told
    found += tokens.take(phrases(language, "shots"), 2)
    for at in (at for at, word in enumerate(tokens.stems) if word == eye):
        tokens.free[at] = False
    if not found:
        return {}
    tokens.read |= {at for at, word in enumerate(tokens.stems) if word == eye}
    best = max(found, key=lambda f: f.end - f.start)
    tokens.read |= positions(
        one for one in found if one.value.startswith(best.value) or best.value.startswith(one.value)
    )
    kind, _, direction = best.value.partition(" ")
    return {"camera": kind} | ({"camera_direction": direction} if direction else {})


def _verb_last(tokens: Tokens, at: int) -> bool:
    """Whether the words behind "camera", at `at`, are a clause whose verb is its last word."""
    ahead = set(tokens.stems[max(0, at - AHEAD) : at])
    return bool(ahead & stems_in(VERB_LAST.get(tokens.language, ""), tokens.language))


def _apart(tokens: Tokens, start: int, end: int) -> list[Found]:
    """The longest phrase whose words stand there in order, the first of them first, with what it is about between
    them: "fährt auf einen Ball zu"."""
    for words, fact in apart(tokens.language):
        places, at = [], start
        for word in words:
            at = next((n for n in range(at, end) if tokens.stems[n] == word and tokens.free[n]), end)
            places.append(at)
            at += 1
        if places[-1] < end and places[0] == start:
            for place in places:
                tokens.free[place] = False
            tokens.read |= set(places)
            return [Found(*fact, start, start + len(words))]
    return []


def _shapes(language: str) -> frozenset[tuple[str, ...]]:
    """Stems of things."""
    return frozenset(words for words, (name, _) in phrases(language, "looks").items() if name == "shape")
