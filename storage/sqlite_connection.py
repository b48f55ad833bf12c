"""A connection to SQLite that makes few turns of its thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Self

import aiosqlite

FIRST = 100
"""Rows that come with the execution: the rest, where there is one, takes another turn."""

BEGIN, BEGIN_WRITING = "BEGIN", "BEGIN IMMEDIATE"


class OneTurnConnection(aiosqlite.Connection):
    """One turn a statement, in which the transaction begins too; none for what was read alone to end.

    aiosqlite makes four turns of its thread of a query: a cursor, the execution, the rows, and the end of the cursor.
    Where hundreds of chats write, to wait for those turns takes longer than SQLite does.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, FIRST)
        self._thread.daemon = True  # as SQLAlchemy wants it: one that hangs must not keep the program from ending
        self._begin = ""  # what is to come before the next statement
        self._reads = True

    def cursor(self) -> OneTurnCursor:  # type: ignore[override]  # SQLAlchemy asks for less than aiosqlite has
        return OneTurnCursor(self)

    def begin(self, how: str) -> None:
        """Let a transaction begin with the next statement: nothing is seen or locked before it."""
        self._begin = how
        self._reads = how == BEGIN

    async def in_thread(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run something in the thread to which the connection belongs."""

        def run() -> Any:
            if self._begin:
                self._conn.execute(self._begin)
                self._begin = ""  # where that fails, the next statement begins it
            return function(self._conn)

        return await self._execute(run)  # type: ignore[no-untyped-call]

    async def commit(self) -> None:
        self._begin = ""
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        """A connection is given back with one, though mostly nothing is left to be undone."""
        self._begin = ""
        if not self.in_transaction:
            return
        if self._reads:  # it cannot fail, and whatever comes next waits behind it
            self._tx.put_nowait((None, self._conn.rollback))
        else:
            await super().rollback()


class OneTurnCursor:
    """What SQLAlchemy asks of a cursor (PEP 249, with coroutines)."""

    arraysize = 1

    def __init__(self, connection: OneTurnConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self._rest: sqlite3.Cursor | None = None  # where there are more rows
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> None:
        if sql in (BEGIN, BEGIN_WRITING):
            self._connection.begin(sql)
        else:
            await self._run(lambda cursor: cursor.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Any) -> None:
        await self._run(lambda cursor: cursor.executemany(sql, parameters))

    async def _run(self, execute: Callable[[sqlite3.Cursor], Any]) -> None:
        def run(connection: sqlite3.Connection) -> None:
            cursor = connection.cursor()
            execute(cursor)
            self.description = cursor.description
            self._rows = cursor.fetchmany(FIRST) if self.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
            if len(self._rows) == FIRST:
                self._rest = cursor
            else:
                cursor.close()

        await self._connection.in_thread(run)

    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        size = size or self.arraysize
        rest = self._rest
        if rest is not None and len(self._rows) < size:
            self._rows += await self._connection.in_thread(lambda _: rest.fetchmany(size))
        found, self._rows = self._rows[:size], self._rows[size:]
        return found

    async def fetchall(self) -> list[Any]:
        rest, found = self._rest, self._rows
        if rest is not None:
            found += await self._connection.in_thread(lambda _: rest.fetchall())
        self._rows = []
        return found

    async def close(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            await self._connection.in_thread(lambda _: rest.close())


def connect(database: str, **options: Any) -> OneTurnConnection:
    """Like `aiosqlite.connect`."""
    return OneTurnConnection(lambda: sqlite3.connect(database, **options))
