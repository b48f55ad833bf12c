"""Runs of one to three characters as numbers: what PostgreSQL finds text by, where it has no extension for it."""

from __future__ import annotations

LONGEST = 3


def grams_of(word: str) -> list[int]:
    """The longest runs of a lower-case word, which the index of every text with that word has.

    The index makes its text lower-case by the rules of its database. A run with a letter that these may see
    differently (ß, ı, the two small sigmas) is left out; none may be left.
    """
    for length in range(min(LONGEST, len(word)), 0, -1):
        runs = {word[begin : begin + length] for begin in range(len(word) - length + 1)}
        if sure := sorted(number(run) for run in runs if all(_is_plain(character) for character in run)):
            return sure
    return []


def number(run: str) -> int:
    """The code points of a run, 21 bits each."""
    value = 0
    for character in run:
        value = value << 21 | ord(character)
    return value


def _is_plain(character: str) -> bool:
    return character.upper().lower() == character and len(character.upper()) == 1 and character != "σ"
