"""A chat in lines: what is said is one, and all that is answered to it is one; `\\n` stands for a new line in them.

A line that begins with `!` says what went wrong. What destroys something is done where `yes` follows.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from asyncio import Queue
from contextlib import suppress

from adapters.base import Ask, File, Incoming, Reply, Segment, Told, command_of, is_urgent
from adapters.talk import Talk
from chatbot.session import open_service
from chatbot.settings import Settings
from storage.errors import StorageError
from storage.people import LOCAL

YES = re.compile(r"\s+yes$")


class LinesRoom:
    """A `Room` that keeps all until the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def busy(self, what: str) -> None:
        """Whoever reads lines waits for one."""

    def show(self, text: str) -> None:
        """A line comes whole."""

    async def deliver(self, segment: Segment) -> None:
        self.lines.append(_said(segment))


def _said(segment: Segment) -> str:
    if isinstance(segment, Ask):
        return f"! {segment.text} Say {segment.command} yes."
    if isinstance(segment, File | Told):
        return f"! {segment.text}" if isinstance(segment, Told) and segment.error else segment.text
    assert isinstance(segment, Reply)
    return "\n".join([*(str(picture.path) for picture in segment.pictures), segment.text])


async def talk_in_lines(settings: Settings, chat: str) -> None:
    """Answer each line of stdin with one on stdout, until there are no more. Raises UserError, StorageError."""
    async with open_service(settings) as service:
        talk = Talk(service)
        waiting: Queue[str | None] = Queue()
        reader = asyncio.create_task(_sort(talk, f"lines:{chat}", _heard(), waiting))
        try:
            while (line := await waiting.get()) is not None:
                _print(await _answer(talk, f"lines:{chat}", line))
        finally:
            reader.cancel()


def _heard() -> Queue[bytes]:
    """The lines of stdin as they come; an empty one is the end.

    Read by a thread that nobody waits for, and without Python's buffer, whose lock it would hold when we leave.
    """
    heard: Queue[bytes] = Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        rest = b""
        with suppress(RuntimeError):  # the loop is closed: we have left
            while piece := os.read(sys.stdin.fileno(), 65536):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    loop.call_soon_threadsafe(heard.put_nowait, line + b"\n")
            if rest:
                loop.call_soon_threadsafe(heard.put_nowait, rest)
            loop.call_soon_threadsafe(heard.put_nowait, b"")

    threading.Thread(target=read, daemon=True).start()
    return heard


async def _sort(talk: Talk, chat: str, heard: Queue[bytes], waiting: Queue[str | None]) -> None:
    """Put what is said where it waits; what is urgent does not."""
    while line := await heard.get():
        said = _unescaped(line.decode("utf-8", "replace").rstrip("\r\n"))
        if is_urgent(said):
            _print(await _answer(talk, chat, said))
        elif said.strip():
            waiting.put_nowait(said)
    waiting.put_nowait(None)


async def _answer(talk: Talk, chat: str, said: str) -> str:
    command = command_of(said)
    agreed = command is not None and bool(command.destroys) and YES.search(said) is not None
    room = LinesRoom()
    incoming = Incoming(chat, LOCAL, LOCAL, YES.sub("", said) if agreed else said, agreed=agreed)
    try:
        await talk.answer(incoming, room)
    except StorageError as error:
        room.lines.append(f"! {error}")
    return "\n".join(room.lines)


def _print(answer: str) -> None:
    print(answer.replace("\\", "\\\\").replace("\n", "\\n"), flush=True)


def _unescaped(line: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], line)
