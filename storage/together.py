"""Short work on a database, done together where it waits at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from storage.sqlite_connection import begun
from storage.threads import Workers

T = TypeVar("T")
Work = Callable[[Connection], Any]
Outcome = tuple[Any, BaseException | None]


class Together:
    """Does all that waits in one turn of a thread, in its order: with many people at once, most of what a short
    piece of work costs is the way there and back.

    Args:
        run: does some pieces of work, in the thread; gives what each returned or raised.
        workers: the thread.
        turn: is waited for before; what comes meanwhile goes along.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Work]], Sequence[Outcome]],
        workers: Workers,
        turn: Callable[[], AbstractAsyncContextManager[object]],
    ) -> None:
        self._run = run
        self._workers = workers
        self._turn = turn
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns or raises; what was cancelled before it began is left out."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, outcome))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())
        return await outcome

    async def _work_off(self) -> None:
        while self._waiting:
            given: list[tuple[Work, asyncio.Future[Any]]] = []
            try:
                async with self._turn():
                    given = self._take()
                    outcomes = await self._workers.do(partial(self._run, [work for work, _ in given]))
            except BaseException as error:
                for _, outcome in given or self._take():
                    _tell(outcome, (None, error))
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, outcome), told in zip(given, outcomes, strict=True):
                    _tell(outcome, told)

    def _take(self) -> list[tuple[Work, asyncio.Future[Any]]]:
        waiting, self._waiting = self._waiting, []
        return [one for one in waiting if not one[1].done()]


def _tell(outcome: asyncio.Future[Any], told: Outcome) -> None:
    result, error = told
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)
    elif isinstance(error, asyncio.CancelledError):
        outcome.cancel()
    else:
        outcome.set_exception(error)


def read_each(engine: Engine, works: Sequence[Work]) -> Sequence[Outcome]:
    """All of them see one state of the database; what one raises is its own."""
    with begun(engine) as connection:
        return [_outcome(work, connection) for work in works]


def write_each(engine: Engine, works: Sequence[Work]) -> Sequence[Outcome]:
    """One transaction; where a piece raises, that is undone, and each has one of its own.

    Raises what keeps it from beginning.
    """
    if len(works) > 1:
        with begun(engine) as connection, suppress(Exception):
            done = [(work(connection), None) for work in works]
            connection.commit()
            return done
    return [_write(engine, work) for work in works]


def _write(engine: Engine, work: Work) -> Outcome:
    try:
        with begun(engine) as connection:
            result = work(connection)
            connection.commit()
            return result, None
    except Exception as error:
        return None, error


def _outcome(work: Work, connection: Connection) -> Outcome:
    try:
        return work(connection), None
    except Exception as error:
        return None, error
