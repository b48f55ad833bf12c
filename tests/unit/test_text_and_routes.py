"""What a person types: cleaned, and sent to what answers it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot import text
from chatbot.commands import COMMANDS
from chatbot.errors import MessageError
from chatbot.router import ToCommand, ToModel, route


@given(st.text())
def test_cleaned_text_can_be_stored_and_drives_no_terminal(typed: str) -> None:
    cleaned = text.clean(typed)
    cleaned.encode("utf-8")
    assert not any(ord(character) < 32 and character not in "\n\t" for character in cleaned)
    assert text.clean(cleaned) == cleaned


def test_cleaning_keeps_what_people_write() -> None:
    written = "Grüße 日本語 😀 [bold]markup[/] <b>&amp;</b>\n\tindented\u200d"
    assert text.clean(written) == written


@pytest.mark.parametrize("empty", ["", "  \n\t ", "\x00\x1b"])
def test_an_empty_message_is_refused(empty: str) -> None:
    with pytest.raises(MessageError, match="empty"):
        text.message(empty)


def test_a_slash_word_is_a_command_with_its_argument() -> None:
    routed = route("/rename  A new title ")
    assert isinstance(routed, ToCommand)
    assert (routed.command, routed.argument) == (COMMANDS["rename"], "A new title")


@pytest.mark.parametrize("said", ["hello", "/etc/hosts is a file", "a /help inside", "/"])
def test_anything_else_goes_to_the_model(said: str) -> None:
    assert route(said) == ToModel(said)


def test_two_slashes_send_a_message_that_begins_with_one() -> None:
    assert route("//help") == ToModel("/help")


def test_an_unknown_command_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(MessageError, match="did you mean /rename"):
        route("/renam x")
