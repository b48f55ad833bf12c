"""What can be done with a message: the keys of a selected one, its menu and the palette all read this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.records import Message


@dataclass(frozen=True, slots=True)
class Act:
    """`key` as Textual names it, `shown` as a person does; `label` stands in the footer, `help` in the menu."""

    name: str
    key: str
    shown: str
    label: str
    help: str
    applies: Callable[[Message], bool]


def is_cut(message: Message) -> bool:
    """Whether a reply ended before it was done."""
    if message.role != "assistant":
        return False
    return message.status in ("interrupted", "stopped", "failed") or message.finish_reason == "length"


ACTS: tuple[Act, ...] = (
    Act("edit", "e", "e", "Edit", "say something else in its place", lambda message: message.role == "user"),
    Act("retry", "r", "r", "Retry", "ask for another reply beside it", lambda message: message.status != "streaming"),
    Act("continue", "c", "c", "Go on", "go on with the cut reply", is_cut),
    Act("previous", "left", "←", "Before", "show the version before", lambda message: message.siblings > 1),
    Act("next", "right", "→", "Next", "show the next version", lambda message: message.siblings > 1),
    Act("good", "plus", "+", "Good", "say that it is good, or take that back", lambda message: is_reply(message)),
    Act("bad", "minus", "-", "Bad", "say that it is bad, or take that back", lambda message: is_reply(message)),
    Act("note", "n", "n", "Note", "say why it is good or bad", lambda message: message.rating != 0),
    Act("copy", "y", "y", "Copy", "copy its text", lambda message: bool(message.text)),
    Act("save", "w", "w", "Save", "write the picture to a file", lambda message: message.attached > 0),
    Act("open", "o", "o", "Open", "look at the picture in another program", lambda message: message.attached > 0),
    Act("pin", "p", "p", "Pin", "let it always be sent to the model, or no longer", lambda message: True),
    Act("fork", "f", "f", "Fork", "go on from here in a conversation of its own", lambda message: True),
    Act("summary", "s", "s", "Summary", "open or close the summary", lambda message: message.summary is not None),
    Act("delete", "d", "d", "Delete", "delete it for good; what followed it stays", lambda message: True),
)

BY_NAME = {act.name: act for act in ACTS}
BY_KEY = {act.key: act for act in ACTS}


def is_reply(message: Message) -> bool:
    return message.role == "assistant"
