"""A connection to SQLite whose work is done in threads, so that nothing else waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Dialect, Engine, Result
from sqlalchemy.exc import DBAPIError

from storage.threads import Workers

P = ParamSpec("P")
T = TypeVar("T")


def begun(engine: Engine) -> Connection:
    """A connection in a transaction, that begins as the engine's option `begin` says.

    Said here rather than where SQLAlchemy tells of what begins: to be told costs every statement a fifth.
    """
    connection = engine.connect()
    try:
        connection.begin()
        connection.exec_driver_sql(engine.get_execution_options()["begin"])
    except BaseException:
        connection.close()  # outside a transaction nothing may run
        raise
    return connection


class ThreadConnection:
    """What this program asks of SQLAlchemy's AsyncConnection, of an engine that is none.

    An async driver makes several turns of its thread of a query, and SQLAlchemy a greenlet: that costs five times
    what the query does. Here it is one turn a call; what `run_sync` does takes one, however many statements it has.

    Args:
        engine: makes the connection, with the first turn.
        workers: do the work.
    """

    def __init__(self, engine: Engine, workers: Workers) -> None:
        self._engine = engine
        self._workers = workers
        self._connection: Connection | None = None
        self._alone = Lock()  # a turn whose task was cancelled may still go on
        self._given_back = False

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    async def execute(self, statement: Any, parameters: Any = None) -> Result[Any]:
        """Run a statement; its rows come with it."""
        return await self.run_sync(_execute, statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> Result[Any]:
        """Run a statement as it is."""
        return await self.run_sync(lambda connection: _whole(connection.exec_driver_sql(statement, parameters)))

    async def run_sync(
        self, work: Callable[Concatenate[Connection, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """Do some work with the connection, in one turn."""
        return await self._workers.do(lambda: self._turn(work, *arguments, **named))

    def _turn(self, work: Callable[Concatenate[Connection, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            with self._alone:
                if self._given_back:
                    raise RuntimeError("The connection was given back.")
                if self._connection is None:
                    self._connection = begun(self._engine)
                return work(self._connection, *arguments, **named)
        finally:
            if self._given_back:  # meanwhile, by a task that was cancelled
                self._close()

    async def commit(self) -> None:
        if self._connection is not None:  # something was done
            await self.run_sync(Connection.commit)

    def give_back(self) -> None:
        """Undo what was not committed, and let others have the connection: some time soon, nobody waits for it."""
        self._given_back = True
        self._workers.do_later(self._close)

    def _close(self) -> None:
        if self._alone.acquire(blocking=False):  # else the turn that still goes on does it, and no thread waits
            try:
                connection, self._connection = self._connection, None
                if connection is not None:
                    with suppress(DBAPIError):  # it cannot be undone any better
                        connection.close()
            finally:
                self._alone.release()


def _execute(connection: Connection, statement: Any, parameters: Any) -> Result[Any]:
    return _whole(connection.execute(statement, parameters))


def _whole(result: Result[Any]) -> Result[Any]:
    """The rows out of the thread to which the cursor belongs."""
    returns_rows: bool = result.returns_rows  # type: ignore[attr-defined]  # what is executed is a CursorResult
    return result.freeze()() if returns_rows else result
