"""Decides what answers a message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from chatbot import picture_requests
from chatbot.commands import COMMANDS, Command
from chatbot.errors import MessageError
from chatbot.picture_requests import PictureRequest

# A path such as /etc/hosts is no command: after the word comes a space or the end.
_COMMAND = re.compile(r"/(\w+)(?:\s+(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToModel:
    """The chat model answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToPictures:
    """The picture model answers what was said: `text`."""

    text: str
    request: PictureRequest


@dataclass(frozen=True, slots=True)
class ToCommand:
    """A command of the registry runs."""

    command: Command
    argument: str


Route = ToModel | ToPictures | ToCommand


def route(text: str) -> Route:
    """Raises MessageError for a command there is not; `//` at the start sends a message that begins with `/`."""
    if text.startswith("//"):
        return ToModel(text[1:])
    return route_command(text) or route_said(text)


def route_command(text: str) -> ToCommand | None:
    """The command that a message gives, if it does. Raises MessageError for one there is not."""
    match = _COMMAND.match(text)
    if match is None:
        return None
    name, argument = match[1].lower(), (match[2] or "").strip()
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean /{close[0]}? " if close else ""
        raise MessageError(f"There is no command /{name}; {hint}/help shows them, // sends it as a message.")
    return ToCommand(COMMANDS[name], argument)


def route_said(text: str) -> ToModel | ToPictures:
    """What answers a message that is no command, such as one that stands in a conversation already."""
    request = picture_requests.find(text)
    return ToModel(text) if request is None else ToPictures(text, request)
