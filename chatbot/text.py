"""Text from outside, made safe to store and to show."""

from __future__ import annotations

import re

from chatbot.errors import MessageError

MAX_MESSAGE_CHARACTERS = 4_000_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Without control characters (escape sequences would drive the terminal) and unpaired surrogates; newlines
    and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def message(text: str) -> str:
    """What a person sends, cleaned. Raises MessageError where nothing is left, or where it is far too long."""
    text = clean(text).strip()
    if not text:
        raise MessageError("There is nothing to send: the message is empty.")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise MessageError(
            f"The message has {len(text):,} characters; {MAX_MESSAGE_CHARACTERS:,} is the most that is taken."
        )
    return text
