"""A reply under way: its task, and what has come of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from chatbot.context import Context
from chatbot.events import Event, TextDelta
from storage.records import Status


@dataclass(slots=True)
class LiveReply:
    """A reply under way."""

    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    text: str = ""
    model: str = ""  # `name@version`, once it is loaded
    context: Context | None = None  # what the model was given
    saved: int = 0  # how many of its characters
    failure: Exception | None = None  # of the saving
    cancelled: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)  # its task may be cancelled from now on
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # its first piece came
    ended_as: Status = "stopped"  # what a cancellation means: the person stopped it, or the program ends

    def emit(self, event: Event) -> None:
        self.events.put_nowait(event)

    def add(self, piece: str) -> None:
        if not self.text:
            self.begun.set()
        self.text += piece
        self.emit(TextDelta(piece))

    def check(self) -> None:
        """Raises what ended the saving: a reply that cannot be kept goes no further."""
        if self.failure is not None:
            raise self.failure

    async def cancel(self) -> None:
        """End it, and wait until what came is saved."""
        if self.task is not None:
            await self.running.wait()
            if not self.cancelled:  # once: a second one would hit the saving of what came
                self.cancelled = True
                self.task.cancel()
            await asyncio.wait([self.task])
