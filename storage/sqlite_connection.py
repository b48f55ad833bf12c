"""A connection to SQLite whose statements mostly take one turn of its thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Self

import aiosqlite

FIRST = 100
"""Rows that come with the execution: the rest, where there is one, takes another turn."""


class OneTurnConnection(aiosqlite.Connection):
    """aiosqlite makes four turns of its thread of a query: a cursor, the execution, the rows, and the end of the
    cursor. Where hundreds of chats write, to wait for those turns takes longer than SQLite does."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, FIRST)
        self._thread.daemon = True  # as SQLAlchemy wants it: one that hangs must not keep the program from ending

    def cursor(self) -> OneTurnCursor:  # type: ignore[override]  # SQLAlchemy asks for less than aiosqlite has
        return OneTurnCursor(self)

    async def rollback(self) -> None:
        """A connection is given back with one, though mostly nothing is left to be undone."""
        if self.in_transaction:
            await super().rollback()

    async def in_thread(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run something in the thread to which the connection belongs."""
        return await self._execute(lambda: function(self._conn))  # type: ignore[no-untyped-call]


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
