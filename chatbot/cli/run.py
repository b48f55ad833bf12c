"""Runs a coroutine so that a polite signal ends it in order, with what came kept."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, which sees to Ctrl-C; SIGTERM and SIGHUP (a closed terminal) cancel too.

    Raises SystemExit with the shell's code for the signal, 128 and its number.
    """
    received: list[signal.Signals] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            received.append(number)
            task.cancel()

        for name in {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__):
            number = signal.Signals[name]
            with suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await coroutine

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
