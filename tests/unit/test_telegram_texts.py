"""Markdown, updates and languages, without a bot."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import talk
from adapters.base import Reply
from adapters.telegram import access, answering, render, room
from adapters.telegram.buttons import under
from adapters.telegram.updates import read
from adapters.texts import in_language, languages
from chatbot import chat
from chatbot.commands import COMMANDS
from tests.telegram.rules import check_buttons, check_entities, check_text, units

ROOT = Path(__file__).parents[2]
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
        ("/edit@the_bot\nmore", "/edit\nmore", True),
        ("/weather Berlin", "/weather Berlin", False),
        ("/etc/hosts is wrong here", "/etc/hosts is wrong here", False),
    ],
)
def test_in_groups_it_is_meant_where_it_is_named(said: str, text: str, asked: bool) -> None:
    assert mentioned(said) == (text, asked)


@pytest.mark.parametrize(
    "said",
    ["hello", "/edit@another_bot\nmore", "/a@b.example is my address", "/foo/bar@2x.png: what is it?", "/what"],
)
def test_what_is_said_to_the_bot_alone_is_meant_for_it(said: str) -> None:
    message = {"message_id": 1, "chat": {"id": 5, "type": "private"}, "from": {"id": 5}, "text": said}
    update = read({"update_id": 1, "message": message}, 1, "The_Bot")
    assert update is not None
    assert (update.text, update.asked) == (said, True)


@pytest.mark.parametrize("language", languages())
def test_every_command_is_explained_in_every_language(language: str) -> None:
    for command in COMMANDS.values():
        assert in_language(language, command.help) != command.help


def test_what_differs_in_a_sentence_stands_in_its_translation() -> None:
    assert in_language("zh-CN", "Here again: {x}") == "回到了：{x}"
    assert in_language("zh", "/new   start a new conversation") == "/new  开始一个新对话"
    for code in ("en", "", "xx", "../zh", "__init__"):
        assert in_language(code, "Stopped.") == "Stopped."


TELLS = {"MessageError", "NotFoundError", "Notice", "Failed", "Told"}
TELLING = (
    *("chatbot/commands.py", "chatbot/chat.py", "chatbot/router.py", "chatbot/text.py", "chatbot/answers.py"),
    *("chatbot/context.py", "adapters/talk.py", "adapters/telegram/answering.py", "adapters/telegram/admin.py"),
)


def _sentences(node: ast.expr | None) -> Iterator[tuple[str, ...]]:
    """What may be told, each sentence in the forms it may have: where something is put in, 7 stands, or nothing."""
    if isinstance(node, ast.IfExp):
        yield from (*_sentences(node.body), *_sentences(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield (node.value,)
    elif isinstance(node, ast.JoinedStr):
        parts = [(str(part.value),) if isinstance(part, ast.Constant) else ("7", "") for part in node.values]
        yield tuple("".join(form) for form in product(*parts))


def _told() -> Iterator[tuple[str, ...]]:
    """Every sentence of the program that the bot may say to someone."""
    for text in (
        access.NOT_ALLOWED,
        access.USED_UP,
        room.UNSURE,
        room.INTERNAL,
        chat.STILL_READ,
        *talk.SURE.values(),
    ):
        yield (text.format(7, 7),)
    for text in (
        answering.FULL,
        answering.UNREADABLE,
        answering.TOO_LARGE,
        answering.GONE,
        answering.UNKNOWN_MODEL,
        *talk.SURE.values(),
    ):
        yield (text,)
    for name in TELLING:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TELLS and node.args:
                yield from _sentences(node.args[0])
            elif isinstance(node, ast.Return) and name.endswith("admin.py"):
                yield from _sentences(node.value)


def _is_told(code: str, text: str) -> bool:
    return all(in_language(code, line) != line for line in text.split("\n") if re.search("[A-Za-z]{3}", line))


@pytest.mark.parametrize("code", languages())
def test_everything_that_is_told_is_told_in_every_language(code: str) -> None:
    told = {forms for forms in _told() if re.search("[A-Za-z]{3}", forms[0])}
    assert len(told) > 50
    untold = [forms for forms in told if not any(_is_told(code, form) for form in forms)]
    assert untold == []
    assert in_language("zh", "/stats\nConversations: 3, since 2026-01-01") == "/stats\n对话：3，自 2026-01-01 起"
    assert in_language("zh", access.USED_UP.format(2, "messages")).startswith("今天的额度用完了：每天 2 条消息。")
