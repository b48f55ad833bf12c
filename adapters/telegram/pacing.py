"""How much may be sent, in one chat and altogether, before Telegram refuses it."""

from __future__ import annotations

import asyncio
import time

EVERYWHERE = (1 / 30, 30)
IN_A_CHAT = (1.0, 3)
IN_A_GROUP = (3.0, 5)
"""Seconds between messages, and how many may come at once after a pause: 30 a second, 1 a second, 20 a minute."""

REMEMBERED = 2_000
"""Chats above which those that are free again are forgotten."""


class _Bucket:
    """The generic cell rate algorithm: `due` is when the next one would come if all were spread evenly."""

    __slots__ = ("_burst", "_every", "due")

    def __init__(self, every: float, burst: int) -> None:
        self._every = every
        self._burst = burst
        self.due = 0.0

    def wait(self, now: float) -> float:
        """Seconds until one may be sent."""
        return max(0.0, self.due - now - self._every * (self._burst - 1))

    def take(self, now: float) -> None:
        self.due = max(self.due, now) + self._every


class Pace:
    """Waits before something is sent: a chat that was refused waits alone."""

    def __init__(self) -> None:
        self._all = _Bucket(*EVERYWHERE)
        self._chats: dict[int, _Bucket] = {}
        self._held: dict[int, float] = {}

    async def turn(self, chat: int) -> None:
        """Return when a message may be sent to a chat."""
        bucket = self._bucket(chat)
        while True:  # others may have come first meanwhile
            now = time.monotonic()
            wait = max(bucket.wait(now), self._held.get(chat, 0.0) - now)
            if wait <= 0:
                wait = self._all.wait(now)
            if wait <= 0:
                bucket.take(now)
                self._all.take(now)
                return
            await asyncio.sleep(wait)

    def ready(self, chat: int) -> bool:
        """Whether a message may be sent to a chat now; what is shown only for a moment does not wait."""
        now = time.monotonic()
        return not (self.held(chat) or self._bucket(chat).wait(now) > 0 or self._all.wait(now) > 0)

    def held(self, chat: int) -> bool:
        """Whether Telegram has asked for patience there."""
        return self._held.get(chat, 0.0) > time.monotonic()

    def hold(self, chat: int, seconds: float) -> None:
        """Send nothing to a chat for so long."""
        self._held[chat] = time.monotonic() + seconds

    def _bucket(self, chat: int) -> _Bucket:
        if len(self._chats) > REMEMBERED:
            now = time.monotonic()
            self._chats = {number: bucket for number, bucket in self._chats.items() if bucket.due > now}
            self._held = {number: until for number, until in self._held.items() if until > now}
        if chat not in self._chats:
            self._chats[chat] = _Bucket(*(IN_A_CHAT if chat > 0 else IN_A_GROUP))
        return self._chats[chat]
