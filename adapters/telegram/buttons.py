"""The buttons under messages, and what pressing one sends back: 64 bytes at most."""

from __future__ import annotations

from typing import get_args

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from adapters.base import Act, Reply
from adapters.texts import in_language

ACTS: tuple[Act, ...] = get_args(Act)
AGREE = "agree"


def under(reply: Reply, language: str) -> InlineKeyboardMarkup:
    """What can be done with a reply."""
    again = in_language(language, "Another picture") if reply.pictures else ""
    act: Act = "redraw" if reply.pictures else "retry"
    first = [InlineKeyboardButton(f"🔄 {again}".rstrip(), callback_data=f"{act}:{reply.id}")]
    if reply.siblings > 1:
        first += [
            InlineKeyboardButton("‹", callback_data=f"previous:{reply.id}"),
            InlineKeyboardButton(f"{reply.position}/{reply.siblings}", callback_data=f"show:{reply.id}"),
            InlineKeyboardButton("›", callback_data=f"next:{reply.id}"),
        ]
    thumbs = [InlineKeyboardButton(face, callback_data=f"{act}:{reply.id}") for face, act in _THUMBS]
    return InlineKeyboardMarkup([[*first, *thumbs]])


_THUMBS = (("👍", "good"), ("👎", "bad"))


def show_again(reply_id: str, language: str) -> InlineKeyboardMarkup:
    label = in_language(language, "Show it again")
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, callback_data=f"show:{reply_id}")]])


def sure(command: str, language: str) -> InlineKeyboardMarkup:
    """Asks whether a command is meant."""
    label = in_language(language, "Yes, delete it")
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, callback_data=f"{AGREE}:{command}")]])


def pressed(data: str) -> tuple[Act, str] | None:
    """What a button does, and with which reply; None for one there is not."""
    act, _, reply_id = data.partition(":")
    return (act, reply_id) if act in ACTS and reply_id else None


def agreed(data: str) -> str:
    """The command that was agreed to, or nothing."""
    act, _, command = data.partition(":")
    return command if act == AGREE else ""
