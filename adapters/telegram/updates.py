"""Reads updates as they came. Nothing in them is taken for granted: what is not as it should be is nothing to us."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from chatbot.commands import COMMANDS

WANTED = ("message", "edited_message", "callback_query")
"""Asked for by name: unset means "as before", whatever that was."""

T = TypeVar("T")

_BEYOND = 2**63
_COMMAND = re.compile(r"/(\w+)(?:@(\w+))?(?=\s|\Z)")


@dataclass(frozen=True, slots=True)
class Chat:
    """Where something was said; `topic` of a group, or 0."""

    id: int
    private: bool
    topic: int = 0

    @property
    def lane(self) -> str:
        """What is answered in order."""
        return f"{self.id}/{self.topic}" if self.topic else str(self.id)


@dataclass(frozen=True, slots=True)
class Document:
    file_id: str
    name: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Update:
    """Something a person did. `message` is the number of the message it is about, theirs or the bot's.

    `act` says what: `said`, `edited`, `pressed` a button, sent something that is not `readable`, or the group
    `moved` to the chat `text`.
    """

    id: int
    act: Literal["said", "edited", "pressed", "unreadable", "moved"]
    chat: Chat
    message: int
    sender: int
    name: str = ""
    language: str = ""
    text: str = ""
    document: Document | None = None
    callback: str = ""
    asked: bool = True
    """In groups: whether it is meant for the bot."""


def read(raw: Any, bot: int, username: str, commands: Container[str] = frozenset(COMMANDS)) -> Update | None:
    """An update; None where it is nothing to answer. In groups, `commands` are for this bot without its name too."""
    number = _get(raw, "update_id", int)
    if number is None or not 0 <= number < _BEYOND:
        return None
    if query := _get(raw, "callback_query", dict):
        return _pressed(number, query)
    for key, act in (("message", "said"), ("edited_message", "edited")):
        if message := _get(raw, key, dict):
            return _said(number, act, message, bot, username, commands)
    return None


def message_id_of(bot: int, chat: int, *numbers: int) -> str:
    """The id in the database of a message that has a number in a chat: the same in every process and at any time."""
    return hashlib.sha256(":".join(map(str, (bot, chat, *numbers))).encode()).hexdigest()[:16]


def _get(raw: Any, key: str, kind: type[T]) -> T | None:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if type(value) is kind else None


def _number(raw: Any, key: str) -> int | None:
    value = _get(raw, key, int)
    return value if value is not None and abs(value) < _BEYOND else None


def _chat(message: dict[str, Any]) -> Chat | None:
    raw = _get(message, "chat", dict)
    number = _number(raw, "id")
    kind = _get(raw, "type", str)
    if number is None or kind not in ("private", "group", "supergroup"):
        return None
    in_topic = message.get("is_topic_message") is True
    return Chat(number, kind == "private", (_number(message, "message_thread_id") or 0) if in_topic else 0)


def _pressed(number: int, query: dict[str, Any]) -> Update | None:
    message, sender = _get(query, "message", dict), _get(query, "from", dict)
    callback, data = _get(query, "id", str), _get(query, "data", str)
    if message is None or sender is None or callback is None or data is None:
        return None
    chat, about, who = _chat(message), _number(message, "message_id"), _number(sender, "id")
    if chat is None or about is None or who is None:
        return None
    return Update(number, "pressed", chat, about, who, *_called(sender), text=data, callback=callback)


def _called(sender: dict[str, Any]) -> tuple[str, str]:
    names = (_get(sender, key, str) for key in ("first_name", "last_name"))
    return " ".join(name for name in names if name), _get(sender, "language_code", str) or ""


def _said(
    number: int, act: Any, message: dict[str, Any], bot: int, username: str, commands: Container[str]
) -> Update | None:
    chat, about = _chat(message), _number(message, "message_id")
    sender = _get(message, "from", dict)
    who = _number(sender, "id")
    if chat is None or about is None or sender is None or who is None or sender.get("is_bot") is True:
        return None
    called = _called(sender)
    if (moved := _number(message, "migrate_to_chat_id")) is not None:
        return Update(number, "moved", chat, about, who, *called, text=str(moved))
    text = _get(message, "text", str) or _get(message, "caption", str) or ""
    text, asked = _addressed(text, username, commands)
    asked = asked or chat.private or _is_reply_to(message, bot)
    document = _document(message)
    if not text and document is None:
        act = "unreadable"
        if not any(key in message for key in ("photo", "voice", "video", "audio", "sticker", "video_note")):
            return None  # someone joined, a title changed: nobody waits for an answer
    return Update(number, act, chat, about, who, *called, text=text, document=document, asked=asked)


def _is_reply_to(message: dict[str, Any], bot: int) -> bool:
    return _number(_get(_get(message, "reply_to_message", dict) or {}, "from", dict), "id") == bot


def _addressed(text: str, username: str, commands: Container[str]) -> tuple[str, bool]:
    """The text without the bot's name, and whether it says by itself that it is meant for the bot."""
    if command := _COMMAND.match(text):
        word, whose = command[1], command[2]
        if whose is None:
            return text, word.lower() in commands
        if whose.lower() == username.lower():
            return f"/{word}{text[command.end() :]}", True
        return text, False
    name = f"@{username}".lower()
    at = text.lower().find(name)
    if at < 0 or text[at + len(name) : at + len(name) + 1].isalnum():
        return text, False
    return (text[:at] + text[at + len(name) :]).strip(" ,:"), True


def _document(message: dict[str, Any]) -> Document | None:
    raw = _get(message, "document", dict)
    file_id = _get(raw, "file_id", str)
    if file_id is None:
        return None
    name, media_type = _get(raw, "file_name", str) or "file", _get(raw, "mime_type", str) or ""
    return Document(file_id, name, media_type, _get(raw, "file_size", int) or 0)
