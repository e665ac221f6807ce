"""What the world's captions are made of: a table of words for each language, and the grammar that inflects them."""

from yozora.world.words.grammar import LANGUAGES, WORD, Noun, Words, load_asked, load_words, tidy, words_of

__all__ = ["LANGUAGES", "WORD", "Noun", "Words", "load_asked", "load_words", "tidy", "words_of"]
