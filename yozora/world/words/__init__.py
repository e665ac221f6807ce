"""What the world's captions are made of: a table of words for each language, and the grammar that inflects them."""

from yozora.world.words.grammar import LANGUAGES, Noun, Words, load_words, tidy

__all__ = ["LANGUAGES", "Noun", "Words", "load_words", "tidy"]
