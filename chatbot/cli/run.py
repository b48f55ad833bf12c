"""Polite signals end what runs in order, with what came kept."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, which sees to Ctrl-C; SIGTERM and SIGHUP (a closed terminal) cancel too.

    Raises SystemExit with the shell's code for the signal, 128 and its number.
    """
    received: list[signal.Signals] = []
    numbers = [signal.Signals[name] for name in {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__)]
    before = {number: signal.getsignal(number) for number in numbers}

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for number in numbers:
            with suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await coroutine

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for number, handler in before.items():  # asyncio leaves the system's own, which ends a training unsaved
            signal.signal(number, handler)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Signals that ask to stop are noted, for the training to save first; a second Ctrl-C ends it at once."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    names = {"SIGINT", "SIGTERM", "SIGHUP"} & set(signal.Signals.__members__)
    if threading.current_thread() is not threading.main_thread():
        names = set()
    before = {name: signal.signal(signal.Signals[name], note) for name in names}
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)
