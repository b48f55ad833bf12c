"""A reply under way: its task, what has come of it, and the saving of that."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from chatbot.context import Context
from chatbot.events import Event, TextDelta
from storage.conversations import Conversations, Status

SAVE_EVERY_S = 0.18
HEARTBEAT_EVERY_S = 1.0


@dataclass(slots=True)
class LiveReply:
    """A reply under way."""

    events: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    text: str = ""
    model: str = ""  # `name@version`, once it is loaded
    context: Context | None = None  # what the model was given
    saver: asyncio.Task[None] | None = None
    cancelled: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)  # its task may be cancelled from now on
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_as: Status = "stopped"  # what a cancellation means: the person stopped it, or the program ends

    def emit(self, event: Event) -> None:
        self.events.put_nowait(event)

    def add(self, piece: str) -> None:
        self.text += piece
        self.changed.set()
        self.emit(TextDelta(piece))

    def check(self) -> None:
        """Raises what ended the saving: a reply that cannot be kept goes no further."""
        if self.saver is not None and self.saver.done():
            self.saver.result()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended.set()
        self.changed.set()

    async def cancel(self) -> None:
        """End it, and wait until what came is saved."""
        if self.task is not None:
            await self.running.wait()
            if not self.cancelled:  # once: a second one would hit the saving of what came
                self.cancelled = True
                self.task.cancel()
            await asyncio.wait([self.task])

    def start_saving(self, conversations: Conversations, reply_id: str) -> None:
        """Save what comes, until it has ended."""
        self.saver = asyncio.create_task(self._keep_saving(conversations, reply_id))

    async def saved(self) -> None:
        """Wait until nothing is being saved any more. Raises StorageError where that failed."""
        if self.saver is not None:
            await self.saver

    async def _keep_saving(self, conversations: Conversations, reply_id: str) -> None:
        """Save the first piece at once, then what came since at least five times a second; show that this
        process lives when nothing comes."""
        while not self.ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), HEARTBEAT_EVERY_S)
            self.changed.clear()
            if not self.ended.is_set():
                await conversations.save_reply(reply_id, self.text)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), SAVE_EVERY_S)
