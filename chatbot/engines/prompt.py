"""From messages to token ids, the same way in every engine that has the tokenizer at hand.

The chat template is rendered with a mark in place of each message. The text around the marks is tokenized with its
control tokens, the messages without: "<|im_end|>" typed by a person stays text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from chatbot.engines.base import ChatMessage

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}\n"
    "{% else %}{{ message.content }}\n\n"
    "{% endif %}{% endfor %}Assistant:"
)
"""For a model without a chat template: a transcript, which any language model continues."""

PLAIN_STOP = "\nUser:"
"""Where the reply to a `PLAIN_TEMPLATE` ends: the model would speak for the person next."""

Render = Callable[[list[dict[str, str]]], str]
"""Applies the chat template, the opening of the reply included, to messages of `role` and `content`."""

Tokenize = Callable[[str, bool, bool], list[int]]
"""Gives the ids of a text; whether control tokens in it count as such; whether it begins the prompt."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids; `last` of them stand before the content of the last message."""

    ids: list[int]
    last: int


Frame = tuple[str | int, ...]
"""What a template writes around messages, and between that the numbers of the messages it writes."""


class Frames:
    """Frames by the roles of their messages, which alone decide them: each is rendered once, and once more on another
    day, since templates may say which it is (one that says the hour says that of the first time)."""

    MOST = 256

    def __init__(self) -> None:
        self._known: dict[tuple[date, tuple[str, ...]], Frame] = {}

    def around(self, messages: Sequence[ChatMessage], render: Render) -> Frame:
        """Raises what `render` raises for messages that the template refuses."""
        key = date.today(), tuple(message.role for message in messages)
        if (frame := self._known.get(key)) is None:
            if len(self._known) >= self.MOST:
                self._known.clear()
            frame = self._known[key] = _frame(key[1], render)
        return frame


def _frame(roles: Sequence[str], render: Render) -> Frame:
    secret = secrets.token_hex(8)
    marked = [{"role": role, "content": f"\ue000{secret}:{number}\ue001"} for number, role in enumerate(roles)]
    # In the order of the template, which may move messages (the system prompt to the last one) or leave some out.
    first, *rest = re.split(f"\ue000{secret}:(\\d+)\ue001", render(marked))
    parts = ((int(number), text) for number, text in zip(rest[::2], rest[1::2], strict=True))
    return (first, *(part for pair in parts for part in pair if part != ""))


def build_prompt(messages: Sequence[ChatMessage], frames: Frames, render: Render, tokenize: Tokenize) -> Prompt:
    """The prompt that `messages` make; where the last one is a reply, it stays open to be gone on with.

    Raises:
        Exception: what `render` raises for messages that the template refuses.
    """
    if messages[-1].role == "assistant":
        opened = build_prompt(messages[:-1], frames, render, tokenize).ids
        return Prompt(opened + tokenize(messages[-1].content, False, False), len(opened))
    ids: list[int] = []
    last = 0
    for place, part in enumerate(frames.around(messages, render)):
        if isinstance(part, str):
            ids += tokenize(part, True, place == 0)
        else:
            if part == len(messages) - 1:
                last = len(ids)
            if messages[part].content:
                ids += tokenize(messages[part].content, False, False)
    return Prompt(ids, last)


def end_of_turn(tokenizer: Any) -> int | None:
    """The control token that the chat template of a tokenizer of transformers writes right after a reply; None where
    it writes something else, or refuses what is asked."""

    def render(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))

    try:
        after = _frame(("user", "assistant"), render)[-1]
    except Exception:  # in whatever way its author chose
        return None
    ids: list[int] = tokenizer(after, add_special_tokens=False).input_ids if isinstance(after, str) else []
    known = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if known is not None and known.special else None


def without_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The system prompt put before what the person said first, for templates that refuse that role."""
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    if rest and system:
        rest[0] = replace(rest[0], content="\n\n".join([*system, rest[0].content]))
    return rest
