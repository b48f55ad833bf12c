"""The saving of replies while they come."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from chatbot.live import LiveReply
from storage.conversations import Conversations

SAVE_EVERY_S = 0.18
HEARTBEAT_EVERY_S = 1.0


class Saver:
    """Saves what comes of all replies under way, in one transaction for all of them.

    The first piece of each at once, then what came since at least five times a second; where nothing comes, a
    heartbeat shows that this process lives.
    """

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._replies: dict[str, LiveReply] = {}
        self._task: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._wake = asyncio.Event()

    def add(self, reply_id: str, live: LiveReply) -> None:
        """Save what comes of it from now on. Where that fails, `live.check` raises why."""
        self._replies[reply_id] = live
        live.begun = self._wake
        if live.text:
            self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_saving())

    async def leave(self, reply_id: str) -> None:
        """Nothing of it is being saved any more, nor will be."""
        del self._replies[reply_id]
        if not self._replies:
            self._wake.set()
        async with self._saving:
            pass

    async def _keep_saving(self) -> None:
        saved = seen = time.monotonic()
        while self._replies:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, saved + SAVE_EVERY_S - time.monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            now = time.monotonic()
            due = {reply_id: live for reply_id, live in self._replies.items() if live.text and not live.saved}
            if now - seen >= HEARTBEAT_EVERY_S:
                saved = seen = now
                due = dict(self._replies)
            elif now - saved >= SAVE_EVERY_S:
                saved = now
                due = {reply_id: live for reply_id, live in self._replies.items() if len(live.text) > live.saved}
            if due:
                async with self._saving:
                    await self._save(due)

    async def _save(self, replies: dict[str, LiveReply]) -> None:
        texts = {reply_id: live.text for reply_id, live in replies.items()}
        try:
            await self._conversations.save_replies(texts)
        except Exception as error:  # whatever it was: it is theirs whose replies are not kept
            for live in replies.values():
                live.failure = error
        else:
            for reply_id, live in replies.items():
                live.saved = len(texts[reply_id])
