"""From messages to token ids, the same way in every engine that has the tokenizer at hand.

The chat template is rendered with a mark in place of each message. The text around the marks is tokenized with its
control tokens, the messages without: "<|im_end|>" typed by a person stays text.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


def build_prompt(messages: Sequence[ChatMessage], render: Render, tokenize: Tokenize) -> Prompt:
    """The prompt that `messages` make; where the last one is a reply, it stays open to be gone on with.

    Raises:
        Exception: what `render` raises for messages that the template refuses.
    """
    if messages[-1].role == "assistant":
        opened = build_prompt(messages[:-1], render, tokenize).ids
        return Prompt(opened + tokenize(messages[-1].content, False, False), len(opened))
    marks = [f"\ue000{secrets.token_hex(8)}\ue001" for _ in messages]
    rest = template = render(
        [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    )
    ids: list[int] = []
    last = 0
    for message, mark in zip(messages, marks, strict=True):
        before, found, after = rest.partition(mark)
        if found:  # a template may leave a message out: it has no system role, say
            if before or rest is template:
                ids += tokenize(before, True, rest is template)
            last = len(ids)
            if message.content:
                ids += tokenize(message.content, False, False)
            rest = after
    if rest:
        ids += tokenize(rest, True, rest is template)
    return Prompt(ids, last)


def without_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The system prompt put before what the person said first, for templates that refuse that role."""
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    if rest and system:
        rest[0] = replace(rest[0], content="\n\n".join([*system, rest[0].content]))
    return rest
