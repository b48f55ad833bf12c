"""Chinese prompts, word by word, through the Chinese names and keywords of emojibase (MIT; from Unicode CLDR)."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

_HAN = re.compile(r"[\u3400-\u9fff]")
_COLOUR = re.compile(r"([红橙黄绿蓝紫黑白粉棕灰])色的?")
_MEANT = {"电脑": "laptop", "医生": "health worker", "护士": "health worker", "老师": "teacher", "学生": "student"}
"""Words that are a part of other names there, or a keyword of something else first."""

_NAMES = Path(__file__).parent / "chinese.tsv"


def has_han(text: str) -> bool:
    """Whether there is a Han character in it."""
    return bool(_HAN.search(text))


def to_english(text: str) -> str | None:
    """The English name of what a Chinese prompt speaks of: the concept that most of the prompt's characters name.

    None where no name and no keyword is in it.
    """
    for word, english in _MEANT.items():
        if word in text:
            return english
    best, score = None, 0.0
    short = len(_HAN.findall(text)) <= 2  # in a longer text a single character is a part of some other word
    text += " " + _COLOUR.sub(r"\1", text)  # a red-coloured heart is called a red heart
    for english, label, keywords in _names():
        value = 0.0
        if label in text:
            value = 4.0 * len(label) ** 2
        covered = sum(len(word) ** 2 for word in keywords if word in text and (len(word) > 1 or short))
        value += covered - 0.01 * len(label)
        if (label in text or covered) and value > score:
            best, score = english, value
    return best


@lru_cache(maxsize=1)
def _names() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    rows = (line.split("\t") for line in _NAMES.read_text(encoding="utf-8").splitlines() if line[0] != "#")
    return tuple(
        (english, label, tuple(keywords.split("|")) if keywords else ()) for english, label, keywords in rows
    )
