"""What an adapter is: it hears people on a platform and shows them what comes of it. What lies between is `Talk`.

An adapter is a folder with a module for its entry point (`chatbot/frontends.py`). For each thing that a person does
it makes an `Incoming` and a `Room`, and awaits `Talk.answer` or `Talk.press`; a room has three methods. In one chat
that is done in order; `/stop` alone passes (`is_urgent`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from chatbot.commands import COMMANDS, Command
from chatbot.errors import MessageError
from chatbot.router import Route, route, route_command

Act = Literal["retry", "redraw", "previous", "next", "good", "bad", "show"]
"""What a button under a reply does; `redraw` asks for another where that is a picture."""


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that someone sent along."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """What someone said.

    Args:
        chat: where, a name among the chats of all platforms; it shows one conversation at a time.
        person: id of who said it (`storage.people`).
        owner: id of whom the conversations of that chat belong to: a group's, or the person's own.
        text: what was said; may be empty where files come with it.
        message_id: the id its message gets, by which it is found again.
        edits: the `message_id` of what is said anew with it.
        files: what came along.
        agreed: the person means it, where it destroys something.
        again: another process began to answer it and died.
        reply: id of the reply that it had begun to show.
        stopped: they no longer wanted the whole of it.
    """

    chat: str
    person: str
    owner: str
    text: str
    message_id: str = ""
    edits: str = ""
    files: tuple[TextFile, ...] = ()
    agreed: bool = False
    again: bool = False
    reply: str = ""
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence, or some lines, of the program; not of the model."""

    text: str
    error: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Whether the person means it: `command`, which destroys something."""

    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was made, a PNG."""

    path: Path
    prompt: str


@dataclass(frozen=True, slots=True)
class File:
    """A file for the person to keep."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, complete or as complete as it will be, in Markdown: number `position` of `siblings`. `pictures` come
    before it."""

    id: str
    text: str
    position: int = 1
    siblings: int = 1
    pictures: tuple[Picture, ...] = field(default=())


Segment = Told | Ask | File | Reply


class Room(Protocol):
    """Where an answer is shown."""

    def busy(self, what: str) -> None:
        """Something takes long: what the program says about it."""
        ...

    def show(self, text: str) -> None:
        """What has come of the reply so far; showing it may be left out."""
        ...

    async def deliver(self, segment: Segment) -> None:
        """Show something for good; it returns once that is out, and is never left out."""
        ...


@dataclass(slots=True)
class Cost:
    """What an answer took: `replies` that were generated, the tokens of their texts, and pictures."""

    replies: int = 0
    tokens: int = 0
    pictures: int = 0


def command_of(text: str) -> Command | None:
    """The command that a text gives, if it does."""
    with suppress(MessageError):
        if (given := route_command(text)) is not None:
            return given.command
    return None


def routed(text: str) -> Route | None:
    """What answers a text; None where it is a command there is not."""
    try:
        return route(text)
    except MessageError:
        return None


def is_urgent(text: str) -> bool:
    """Whether it passes all that waits in its chat."""
    return command_of(text) is COMMANDS["stop"]
