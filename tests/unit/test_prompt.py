"""From messages to token ids: the template around them, and what they say."""

from __future__ import annotations

from datetime import date

import pytest

from chatbot.engines import prompt
from chatbot.engines.base import ChatMessage
from chatbot.engines.prompt import Frames, build_prompt

SYSTEM, HELLO, REPLY = (
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "<end>"),
    ChatMessage("assistant", "Hi"),
)


class Template:
    """Writes each message between signs; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.asked += 1
        return "".join(f"<{one['role']}>{one['content']}<end>" for one in messages) + "<assistant>"


def ids(text: str, control: bool, first: bool) -> list[int]:
    """A number a character; those of control tokens are others, and so is the beginning."""
    return [1] * first + [ord(character) + 1_000_000 * control for character in text]


def test_what_a_person_types_is_no_control_token_and_the_last_message_is_found() -> None:
    frames, template = Frames(), Template()
    made = build_prompt([SYSTEM, HELLO], frames, template, ids)
    expected = ids("<system>", True, True) + ids("Be brief.", False, False) + ids("<end><user>", True, False)
    assert made.last == len(expected)
    assert made.ids == expected + ids("<end>", False, False) + ids("<end><assistant>", True, False)
    opened = build_prompt([SYSTEM, HELLO, REPLY], frames, template, ids)
    assert opened.ids == made.ids + ids("Hi", False, False)
    assert opened.last == len(made.ids)


def test_a_template_is_asked_once_for_the_same_roles_and_again_on_another_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, template = Frames(), Template()
    first = build_prompt([HELLO], frames, template, ids)
    other = build_prompt([ChatMessage("user", "else")], frames, template, ids)
    assert template.asked == 1
    assert first.ids != other.ids
    build_prompt([HELLO, REPLY, HELLO], frames, template, ids)
    assert template.asked == 2

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date(2999, 1, 1)

    monkeypatch.setattr(prompt, "date", Tomorrow)
    assert build_prompt([HELLO], frames, template, ids) == first
    assert template.asked == 3


def test_frames_have_a_bound() -> None:
    frames, template = Frames(), Template()
    for length in range(1, 2 * Frames.MOST):
        build_prompt([HELLO] * length, frames, template, ids)
    assert len(frames._known) <= Frames.MOST


def test_a_template_that_moves_the_system_prompt_to_the_last_message_loses_nothing() -> None:
    def moves(messages: list[dict[str, str]]) -> str:
        system, *rest = (one["content"] for one in messages)
        first, reply, last = rest
        return f"<s>{first}<r>{reply}<s>{system}|{last}<r>"

    said = [SYSTEM, ChatMessage("user", "one"), ChatMessage("assistant", "two"), ChatMessage("user", "three")]
    made = build_prompt(said, Frames(), moves, ids)
    texts = (("<s>", True), ("one", False), ("<r>", True), ("two", False), ("<s>", True), ("Be brief.", False))
    texts += (("|", True), ("three", False), ("<r>", True))
    assert made.ids == [one for place, (text, control) in enumerate(texts) for one in ids(text, control, place == 0)]
    assert made.ids[made.last :] == ids("three", False, False) + ids("<r>", True, False)


def test_what_a_template_refuses_is_refused_each_time_and_what_it_leaves_out_is_left_out() -> None:
    def refuses(messages: list[dict[str, str]]) -> str:
        raise ValueError("no system role")

    frames = Frames()
    for _ in range(2):
        with pytest.raises(ValueError, match="no system role"):
            build_prompt([SYSTEM], frames, refuses, ids)
    made = build_prompt([SYSTEM, HELLO], Frames(), lambda messages: messages[1]["content"] + "<a>", ids)
    assert made.ids == ids("", True, True) + ids("<end>", False, False) + ids("<a>", True, False)
