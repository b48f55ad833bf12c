"""Threads for work that waits for a disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """So many threads, that do what they are given in its order, each of them one thing at a time.

    They keep no program from ending: what one of them is in the middle of then is lost.
    """

    def __init__(self, count: int) -> None:
        self._given: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._count = count
        self._threads: list[Thread] = []

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; what was cancelled before it began is left out."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            if outcome.cancelled():
                return
            try:
                result = work()
            except BaseException as error:  # whoever waits for it hears of it
                tell(outcome.set_exception, error)
            else:
                tell(outcome.set_result, result)

        def tell(how: Callable[[Any], None], what: object) -> None:
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(lambda: None if outcome.done() else how(what))

        self._give(run)
        return await outcome

    def do_later(self, work: Callable[[], object]) -> None:
        """Let something be done that cannot fail, and for which nobody waits."""
        self._give(work)

    async def end(self, within_s: float) -> None:
        """Do what was given, and wait for that so long at most; whatever is given after it, new threads do."""
        threads, give_up = self._threads, time.monotonic() + within_s
        for _ in threads:
            self._given.put(None)
        self._given, self._threads = SimpleQueue(), []
        for thread in threads:
            await asyncio.to_thread(thread.join, max(0.0, give_up - time.monotonic()))

    def _give(self, work: Callable[[], object]) -> None:
        if not self._threads:
            self._threads = [Thread(target=_work_off, args=(self._given,), daemon=True) for _ in range(self._count)]
            for thread in self._threads:
                thread.start()
        self._given.put(work)


def _work_off(given: SimpleQueue[Callable[[], object] | None]) -> None:
    while (work := given.get()) is not None:
        with suppress(Exception):  # of what nobody waits for
            work()
        del work  # nothing of it is kept until the next
