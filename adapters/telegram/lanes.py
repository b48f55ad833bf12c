"""What waits, chat by chat: in order within one, chats side by side."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable, Iterable

from storage.inbox import Entry


class Lanes:
    """Runs one task for each lane in which something waits.

    Args:
        work: answers an entry, whatever happens.
        emptied: hears of a lane in which nothing waits any more.
    """

    def __init__(self, work: Callable[[Entry], Awaitable[None]], emptied: Callable[[str], None]) -> None:
        self._work = work
        self._emptied = emptied
        self._waiting: dict[str, list[Entry]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.draining = False
        """What is begun is brought to its end, and nothing else is begun."""

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            waiting = self._waiting.setdefault(entry.lane, [])
            insort(waiting, entry, key=lambda one: one.update_id)
            if entry.lane not in self._tasks and not self.draining:
                self._tasks[entry.lane] = asyncio.create_task(self._run(entry.lane))

    @property
    def count(self) -> int:
        """How much waits or is being answered."""
        return sum(map(len, self._waiting.values()))

    async def drain(self, seconds: float) -> bool:
        """Let what is begun end, for so long; then end it. False where something had to be."""
        self.draining = True
        tasks = list(self._tasks.values())
        if not tasks:
            return True
        try:
            _, late = await asyncio.wait(tasks, timeout=seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return not late

    async def _run(self, lane: str) -> None:
        waiting = self._waiting[lane]
        try:
            while waiting and not self.draining:
                # Not taken out by its place: one that came earlier may have arrived meanwhile.
                entry = waiting[0]
                try:
                    await self._work(entry)
                finally:
                    waiting.remove(entry)
        finally:
            del self._waiting[lane], self._tasks[lane]
            self._emptied(lane)
