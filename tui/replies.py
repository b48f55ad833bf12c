"""Replies under way: each turn is heard to its end, wherever the person looks meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.events import (
    ConversationChanged,
    Event,
    Failed,
    FileReady,
    Finished,
    ImageReady,
    Notice,
    Progress,
    Started,
    TextDelta,
    Usage,
)
from tui.message import ReplyView
from tui.picture import Shown

if TYPE_CHECKING:
    from tui.chat_screen import ChatScreen


@dataclass(slots=True)
class LiveReply:
    """A reply under way; `view` is there while it is shown, and has been given `shown` characters."""

    conversation: str
    reply: str
    text: str = ""
    shown: int = 0
    view: ReplyView | None = None
    drawn: bool = False  # a picture came

    def show_in(self, view: ReplyView) -> None:
        """Follow it there, from its beginning."""
        if view is not self.view:
            view.live = True
            view.show(view.message)
            self.view, self.shown = view, 0


class Replies:
    """Turns the events of a turn into what the chat shows."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.live: dict[str, LiveReply] = {}
        self.starting = False
        """A message is on its way to the database."""

    async def hear(self, turn: AsyncGenerator[Event, None], not_taken: Callable[[], None]) -> None:
        """Hear a turn or a command to its end; `not_taken` gives back what was typed where nothing became of it."""
        live, looked_at = None, self._screen.opening.shown
        self.starting = True
        try:
            async with aclosing(turn) as stream:
                async for event in stream:
                    if isinstance(event, Started):
                        live = self.live[event.conversation] = LiveReply(event.conversation, event.reply)
                        self.starting = False
                        await self._begin(event, live, looked_at)
                    elif isinstance(event, TextDelta) and live is not None:
                        live.text += event.text
                    elif live is not None:
                        await self._during_reply(event, live)
                    else:
                        await self._from_command(event, not_taken)
        finally:
            if live is None:
                self.starting = False
            else:
                self.live.pop(live.conversation, None)

    async def _begin(self, started: Started, live: LiveReply, looked_at: int) -> None:
        screen = self._screen
        if await screen.opening.begin(started, looked_at):
            screen.status.state = "reading"
        await screen.refresh_sidebar()

    async def _during_reply(self, event: Event, live: LiveReply) -> None:
        screen = self._screen
        here = screen.conversation == live.conversation
        if isinstance(event, Progress):
            screen.status.show_progress(event)
        elif isinstance(event, ImageReady):
            live.drawn = True
            if live.view is not None and live.view.is_attached:
                shown = Shown(event.path, event.prompt, event.seed, event.style, event.model)
                await live.view.add_picture(shown, screen.graphics)
        elif isinstance(event, Usage) and here:
            screen.status.usage = event
        elif isinstance(event, Finished | Failed):
            await self._show(live)
            self.live.pop(live.conversation, None)
            if live.view is not None:
                await live.view.end(live.text, event)
                screen.transcript.refresh_bindings()  # more can be done with it now
            screen.status.state = "replying elsewhere" if self.live else "ready"
            if isinstance(event, Finished) and event.model and here and not live.drawn:
                screen.status.model = event.model
            await screen.refresh_sidebar()
            screen.opening.follow_summary()

    async def _from_command(self, event: Event, not_taken: Callable[[], None]) -> None:
        screen = self._screen
        if isinstance(event, Notice):
            await screen.tell(event.text)
        elif isinstance(event, Progress):
            screen.status.show_progress(event)
        elif isinstance(event, ConversationChanged):
            await screen.opening.switch(event.conversation)
        elif isinstance(event, FileReady):
            try:
                await screen.tell(f"Written: {_written(event)}")
            except OSError as error:
                await screen.tell(f"{event.name} cannot be written: {error.strerror}.", error=True)
        elif isinstance(event, Failed):
            await screen.tell(event.text, error=True)
            not_taken()

    async def flush(self) -> None:
        """Show what has come."""
        for live in list(self.live.values()):
            await self._show(live)

    async def _show(self, live: LiveReply) -> None:
        view = live.view
        if view is None or not view.is_attached or len(live.text) == live.shown:
            return
        piece, live.shown = live.text[live.shown :], len(live.text)
        if self._screen.status.state != "replying":
            self._screen.status.state = "replying"
        await view.append(piece)


def _written(file: FileReady) -> Path:
    """Write a file to where the person stands, beside whatever is there; where it is."""
    wanted = Path(file.name)
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}-{number}")
        try:
            with path.open("x", encoding="utf-8") as opened:
                opened.write(file.text)
            return path.resolve()
        except FileExistsError:
            continue
    raise AssertionError
