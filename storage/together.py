"""Short work on a database, done together where it waits at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from storage.sqlite_connection import begun
from storage.threads import Workers

T = TypeVar("T")
Outcome = tuple[Any, BaseException | None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some work, and whoever waits for what comes of it."""

    work: Callable[[Connection], Any]
    outcome: asyncio.Future[Any]

    @property
    def wanted(self) -> bool:
        """Whether nobody has cancelled it."""
        return not self.outcome.done()

    def tell(self, result: Any, error: BaseException | None) -> None:
        if not self.wanted:
            return
        if error is None:
            self.outcome.set_result(result)
        elif isinstance(error, asyncio.CancelledError):
            self.outcome.cancel()
        else:
            self.outcome.set_exception(error)


class Together:
    """Does all that waits in one turn of a thread, in its order: with many people at once, most of what a short
    piece of work costs is the way there and back.

    Args:
        run: does some pieces, in the thread; gives what each returned or raised.
        workers: the threads.
        turn: is waited for before; what comes meanwhile goes along.
        most: turns that may be under way at once.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Piece]], Sequence[Outcome]],
        workers: Workers,
        turn: Callable[[], AbstractAsyncContextManager[object]],
        most: int,
    ) -> None:
        self._run = run
        self._workers = workers
        self._turn = turn
        self._most = most
        self._waiting: list[Piece] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def do(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns or raises; what is cancelled before it is done is left out, or undone."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Piece(work, outcome))
        self._tasks = [task for task in self._tasks if not (task.done() or task.cancelling())]
        if len(self._tasks) < self._most:
            self._begin()
        return await outcome

    def _begin(self) -> None:
        self._tasks.append(asyncio.create_task(self._work_off()))

    async def _work_off(self) -> None:
        while self._waiting:
            given: list[Piece] = []
            patient = len(self._waiting)  # who comes later is to wait as long as they
            try:
                async with self._turn():
                    given = self._take()
                    outcomes = await self._workers.do(partial(self._run, given)) if given else []
            except Exception as error:
                for piece in given or self._take(patient):
                    piece.tell(None, error)
            except BaseException as error:
                for piece in given:
                    piece.tell(None, error)
                if self._waiting:  # of those whom nobody has cancelled
                    self._begin()
                raise
            else:
                for piece, outcome in zip(given, outcomes, strict=True):
                    piece.tell(*outcome)

    def _take(self, most: int | None = None) -> list[Piece]:
        taken = self._waiting[:most]
        del self._waiting[:most]
        return [piece for piece in taken if piece.wanted]


def read_each(engine: Engine, pieces: Sequence[Piece]) -> Sequence[Outcome]:
    """All of them see one state of the database; what one raises is its own."""
    with begun(engine) as connection:
        return [_outcome(piece, connection) for piece in pieces]


def write_each(engine: Engine, pieces: Sequence[Piece]) -> Sequence[Outcome]:
    """One transaction; where a piece raises or is cancelled meanwhile, that is undone, and each has one of its own.

    Raises what keeps it from beginning.
    """
    if len(pieces) > 1:
        with begun(engine) as connection, suppress(Exception):
            done = [(piece.work(connection), None) for piece in pieces]
            if all(piece.wanted for piece in pieces):
                connection.commit()
                return done
    outcomes: list[Outcome] = []
    for piece in pieces:
        try:
            connection = begun(engine)
        except Exception as error:  # the others would wait for the lock as long, each
            return [*outcomes, *((None, error) for _ in pieces[len(outcomes) :])]
        with connection:
            outcomes.append(_outcome(piece, connection, commit=True))
    return outcomes


def _outcome(piece: Piece, connection: Connection, *, commit: bool = False) -> Outcome:
    try:
        result = piece.work(connection)
        if commit and piece.wanted:
            connection.commit()
        return result, None
    except Exception as error:
        return None, error
