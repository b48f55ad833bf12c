"""What asks for a picture, by a labelled set half of which are traps."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.picture_requests import LONGEST, PictureRequest, find

ROWS = [
    line.split("\t")
    for line in (Path(__file__).parent / "picture_requests.tsv").read_text(encoding="utf-8").splitlines()
]
ASKED = [(prompt, text) for label, prompt, text in ROWS if label == "picture"]
TRAPS = [text for label, _, text in ROWS if label == "text"]


def test_of_two_hundred_messages_nearly_all_are_told_right() -> None:
    assert (len(ASKED), len(TRAPS)) == (100, 100)
    missed = [text for _, text in ASKED if find(text) is None]
    assert len(missed) <= 2, missed
    assert [text for text in TRAPS if find(text) is not None] == []


def test_what_is_to_be_drawn_is_taken_out_of_the_words_around_it() -> None:
    same = sum((found := find(text)) is not None and found.prompt.lower() == prompt.lower() for prompt, text in ASKED)
    assert same >= 92


@pytest.mark.parametrize("text", ["draw it", "Now draw that, please!", "Can you paint what you described?", "画它"])
def test_what_was_said_last_can_be_asked_for(text: str) -> None:
    assert find(text) == PictureRequest("")


def test_the_command_takes_a_seed_and_a_style() -> None:
    assert find("/imagine a red heart") == PictureRequest("a red heart")
    assert find("/imagine --seed 7 --style noto a\nred heart") == PictureRequest("a\nred heart", 7, "noto")
    assert find("/imagine ") is None


@pytest.mark.parametrize(
    "text", ["", " ", "draw", "/imaginea b", "draw a " + "very " * LONGEST + "long dog", "🎨", "画"]
)
def test_what_asks_for_nothing_stays_text(text: str) -> None:
    assert find(text) is None


@pytest.mark.parametrize(
    ("picture", "idiom"),
    [
        ("draw a house", "paint the house"),
        ("draw a sword", "draw your sword"),
        ("draw a water lily", "draw water from the well"),
        ("draw a fire truck", "draw fire away from them"),
        ("paint a nail on a wall", "paint my nails red"),
    ],
)
def test_a_thing_is_drawn_and_an_idiom_is_not(picture: str, idiom: str) -> None:
    assert find(picture) is not None
    assert find(idiom) is None


@pytest.mark.parametrize(
    "text",
    [
        "illustrate how photosynthesis works",
        "illustrate the difference between a stack and a queue",
        "sketch the proof of Fermat's little theorem",
        "draw names for secret santa",
        "draw a random number between 1 and 10",
        "draw a sample from a normal distribution",
        "paint a bleak picture of the economy",
        "I want a new pair of emojis",
        "帮我画重点",
    ],
)
def test_what_is_explained_or_drawn_by_lot_is_no_picture(text: str) -> None:
    assert find(text) is None


@pytest.mark.parametrize(
    ("text", "prompt"), [("I want a cat sticker", "a cat"), ("I'd like a red heart emoji", "a red heart")]
)
def test_a_sticker_can_be_wished_for(text: str, prompt: str) -> None:
    assert find(text) == PictureRequest(prompt)
