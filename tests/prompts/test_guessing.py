"""What the tables leave unread is guessed by a network, only where the unread words are why, and it is said."""

from __future__ import annotations

from yozora.prompts.guessing import Guess, guess
from yozora.prompts.lexicon import LexiconReader
from yozora.prompts.writer import WorldWriter, load_writer


class ByWords:
    """Reads by a table of its own; what stands under "" it says of any text."""

    def __init__(self, table: dict[str, tuple[str, str, float]]) -> None:
        self.table, self.asked = table, 0

    def chances(self, text: str) -> dict[str, tuple[str, float]]:
        self.asked += 1
        words = ["", *text.lower().replace(",", "").split()]
        return {
            name: (value, chance) for word in words if word in self.table for name, value, chance in [self.table[word]]
        }


TABLE = {
    "": ("ground", "snow", 0.9),  # said of anything
    "gambols": ("motion", "bounce", 0.8),
    "hazily": ("weather", "fog", 0.3),  # not sure
    "ball": ("shape", "sphere", 1.0),
    "twice": ("second_shape", "cube", 0.9),  # no such fact is guessed
}


def test_only_what_unread_words_say_is_guessed() -> None:
    network = ByWords(TABLE)
    text = "a red ball gambols hazily twice"
    unread = ("gambols", "hazily", "twice")
    assert guess(network, text, unread, {"shape": "sphere"}) == {"motion": Guess("bounce", ("gambols",))}
    assert guess(network, text, unread, {"motion": "roll"}) == {}  # what was read stays
    network.asked = 0
    assert guess(network, text, (), {}) == {} and network.asked == 0


def test_a_guess_is_told_and_said() -> None:
    writer = WorldWriter(LexiconReader(), network=lambda: ByWords(TABLE))
    understood = writer.understand("a crimson ball gambols gently")
    assert understood is not None and understood.caption == "A red ball bounces."
    assert understood.notes == ("guessed: bounce (by gambols)", "left out: gently")
    without = WorldWriter(LexiconReader()).understand("a crimson ball gambols gently")
    assert without is not None and without.caption == "A red ball." and "gambols" in without.notes[-1]


def test_the_one_that_ships_is_asked_by_default() -> None:
    facts, notes = load_writer().read("ein Ball rollt linksherum")
    assert facts["direction"] == "left" and "guessed: left (by linksherum)" in notes
    assert not any("guessed" in note for note in load_writer().read("a red ball bounces on the grass")[1])
