"""SQLite: a file, its pragmas, and what its errors mean."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.errors import StorageError
from storage.sqlite_connection import ThreadConnection
from storage.threads import Workers
from storage.together import Together, read_each, write_each

T = TypeVar("T")

BUSY_TIMEOUT_MS = 15_000

READERS = 16
"""Connections that read at once."""

THREADS = 4
"""In which all of them work: a long search holds up one."""

LEAVE_S = 1.0
"""How long what is under way may take where the database is closed."""

_REASONS = (
    (r"readonly|read-only", "cannot be written: it is read-only; change its permissions or set CHATBOT_HOME"),
    (r"not a database|malformed|file is encrypted", "is damaged; move it away, or put a copy of yours back"),
    (r"disk is full|no space", "cannot be written: the disk is full; make room and try again"),
    (r"unable to open", "cannot be opened; check that its folder is there and yours to write"),
    (r"disk i/o error", "cannot be read or written: the disk reports an error"),
    (r"locked", "is locked by another program for too long; close that and try again"),
)


class Sqlite:
    """A `Backend`. Any driver of SQLite that SQLAlchemy knows is taken; an encrypting one, say, is another URL."""

    elsewhere = "set CHATBOT_HOME to another folder"
    patience_s = 0.0

    def __init__(self, url: URL) -> None:
        if url.drivername == "sqlite+aiosqlite":  # whoever wants the usual driver may say so either way
            url = url.set(drivername="sqlite")
        url = url.difference_update_query(["check_same_thread"])  # that is for us to say
        if not url.database or "memory" in f"{url.database.partition(':')[2]}{url.query.get('mode')}":
            raise StorageError("The database URL names no file; what was said would be lost.")
        self.shown = url.database or ""
        _make_folder(Path(self.shown).parent)
        self._engine = create_engine(url, poolclass=QueuePool, pool_size=READERS + 1, max_overflow=-1)
        driver: Any = self._engine.dialect.loaded_dbapi
        self.errors: tuple[type[Exception], ...] = (sqlite3.Error, driver.Error)
        event.listen(self._engine, "connect", _prepare)
        self._reader = self._engine.execution_options(begin="BEGIN")
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        # What is written waits for no reader; there is one writer at a time.
        self._reading, self._writing = Workers(THREADS), Workers(1)
        self._readers = asyncio.Semaphore(READERS)
        self._one_writer = asyncio.Lock()
        self._queries = Together(partial(read_each, self._reader), self._reading, lambda: self._readers, THREADS)
        self._changes = Together(partial(write_each, self._writer), self._writing, self._alone, 1)

    async def close(self) -> None:
        for workers in (self._writing, self._reading):  # what was given back is closed, and the log put in the file
            await workers.end(LEAVE_S)
        await asyncio.to_thread(self._engine.dispose)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._readers, self._connected(self._reader, self._reading) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, scope: str | None) -> AsyncIterator[AsyncConnection]:
        """One at a time, in order: those who meet in SQLite sleep there, up to a tenth of a second at a time.

        BEGIN IMMEDIATE, with the first statement, locks the whole file, whatever the scope.
        """
        async with self._alone(), self._connected(self._writer, self._writing) as connection:
            yield connection
            await connection.commit()

    async def query(self, work: Callable[[Connection], T]) -> T:
        return await self._queries.do(work)

    async def change(self, scope: str | None, work: Callable[[Connection], T]) -> T:
        return await self._changes.do(work)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_MS / 1000):
                await self._one_writer.acquire()
        except TimeoutError:
            raise sqlite3.OperationalError("database is locked") from None
        try:
            yield
        finally:
            self._one_writer.release()

    def migrating(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self.writing(None)

    @asynccontextmanager
    async def _connected(self, engine: Engine, workers: Workers) -> AsyncIterator[AsyncConnection]:
        connection = ThreadConnection(engine, workers)
        try:
            yield cast(AsyncConnection, connection)  # as far as anything here uses one
        finally:
            connection.give_back()

    async def check_new(self, connection: AsyncConnection) -> None:
        """Every SQLite file holds Unicode."""

    def reason(self, error: BaseException) -> str | None:
        for pattern, reason in _REASONS:
            if re.search(pattern, str(error), re.IGNORECASE):
                return reason
        return None

    def is_away(self, error: BaseException) -> bool:
        return False  # SQLite waits by itself: busy_timeout


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the folder {folder}: {error.strerror}.") from None


def _write_ahead(cursor: Any) -> None:
    """Use a write-ahead log. Where two begin that at once, SQLite tells one that it is locked, and does not wait."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
        time.sleep(0.01)


def _prepare(connection: Any, record: Any) -> None:
    # The driver must not begin transactions of its own: they would start as readers and fail to become
    # writers when another process writes in between.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # what is deleted or written over leaves no bytes in the file
    cursor.close()
