"""Markdown, updates and languages, without a bot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Reply
from adapters.telegram import render
from adapters.telegram.buttons import under
from adapters.telegram.updates import read
from adapters.texts import in_language, languages
from chatbot.commands import COMMANDS
from tests.telegram.rules import check_buttons, check_entities, check_text, units

MARKDOWN = st.text(st.sampled_from("ab 😀\n*_`~#>|-[](){}!\\.1é界"), max_size=400)


@given(MARKDOWN, st.integers(20, 120))
def test_whatever_a_model_writes_telegram_takes(text: str, limit: int) -> None:
    for piece in render.pieces(text, limit):
        check_text(piece.text, least=1)
        assert units(piece.text) <= limit
        check_entities(piece.text, [entity.to_dict() for entity in piece.entities])


@given(st.text(max_size=300), st.integers(20, 60))
def test_a_text_in_pieces_is_all_there(text: str, limit: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    whole = "".join(piece.text for piece in render.plain(text, limit))
    assert [*"".join(whole.split())] == [*"".join(text.split())] or not text.strip()


def test_pieces_end_after_paragraphs_and_leave_code_whole() -> None:
    code = "```python\n" + "\n".join(f"line{number} = 1" for number in range(8)) + "\n```"
    first, second = render.pieces(f"{'word ' * 12}\n\n{code}\n\nafter", 130)
    assert first.text == ("word " * 12).strip()
    assert second.text.startswith("line0")
    assert second.text.split("\n\n")[0].endswith("line7 = 1")
    assert [entity.type for entity in second.entities] == ["pre"]
    first, second = render.pieces("a" * 60 + "\n\n" + "b" * 60, 100)
    assert (first.text, second.text) == ("a" * 60, "b" * 60)


def test_a_split_within_characters_of_two_units_keeps_them_whole() -> None:
    pieces = render.pieces("😀" * 5000)
    assert [units(piece.text) for piece in pieces] == [4096, 4096, 1808]
    assert "".join(piece.text for piece in pieces) == "😀" * 5000


def test_what_buttons_send_back_fits() -> None:
    markup = under(Reply("0" * 32, "text", 99_999, 99_999), "zh")
    check_buttons(markup.to_dict())


KEYS = st.sampled_from(
    [
        "update_id", "message", "edited_message", "callback_query", "chat", "from", "id", "type", "text", "data",
        "message_id", "document", "file_id", "caption", "reply_to_message", "language_code", "is_topic_message",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


@given(JSON)
def test_an_update_is_read_or_is_nothing_whatever_it_is(raw: Any) -> None:
    read(raw, 1, "bot")


def mentioned(text: str) -> tuple[str, bool]:
    who = {"id": 5, "is_bot": False}
    message = {"message_id": 1, "chat": {"id": -7, "type": "group"}, "from": who, "text": text}
    update = read({"update_id": 1, "message": message}, 1, "The_Bot")
    assert update is not None
    return update.text, update.asked


@pytest.mark.parametrize(
    ("said", "text", "asked"),
    [
        ("hello", "hello", False),
        ("@the_bot hello", "hello", True),
        ("well, @The_Bot, hello", "well, , hello", True),
        ("@the_bottle hello", "@the_bottle hello", False),
        ("/help@the_bot", "/help", True),
        ("/edit@the_bot more  words", "/edit more  words", True),
        ("/help@another_bot", "/help@another_bot", False),
        ("/help", "/help", True),
    ],
)
def test_in_groups_it_is_meant_where_it_is_named(said: str, text: str, asked: bool) -> None:
    assert mentioned(said) == (text, asked)


@pytest.mark.parametrize("language", languages())
def test_every_command_is_explained_in_every_language(language: str) -> None:
    for command in COMMANDS.values():
        assert in_language(language, command.help) != command.help


def test_what_differs_in_a_sentence_stands_in_its_translation() -> None:
    assert in_language("zh-CN", "Here again: {x}") == "回到了：{x}"
    assert in_language("zh", "/new   start a new conversation") == "/new  开始一个新对话"
    for code in ("en", "", "xx", "../zh", "__init__"):
        assert in_language(code, "Stopped.") == "Stopped."
