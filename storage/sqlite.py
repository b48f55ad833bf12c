"""SQLite: a file, its pragmas, and what its errors mean."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.errors import StorageError
from storage.sqlite_connection import BEGIN, BEGIN_WRITING, connect

BUSY_TIMEOUT_MS = 15_000
LEAVE_S = 1.0

_REASONS = (
    (r"readonly|read-only", "cannot be written: it is read-only; change its permissions or set CHATBOT_HOME"),
    (r"not a database|malformed|file is encrypted", "is damaged; move it away, or put a copy of yours back"),
    (r"disk is full|no space", "cannot be written: the disk is full; make room and try again"),
    (r"unable to open", "cannot be opened; check that its folder is there and yours to write"),
    (r"disk i/o error", "cannot be read or written: the disk reports an error"),
    (r"locked", "is locked by another program for too long; close that and try again"),
)


class Sqlite:
    """A `Backend`. Any async driver of SQLite is taken; an encrypting one, say, is another URL."""

    elsewhere = "set CHATBOT_HOME to another folder"
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, url: URL) -> None:
        self.shown = url.database or ""
        if url.database:
            _make_folder(Path(url.database).parent)
        self.reader = create_async_engine(url, connect_args=_own_connection(url))
        self.writer = self.migrator = self.reader.execution_options(chatbot_write=True)
        self._one_writer = asyncio.Lock()
        self._leaving: set[asyncio.Future[Any]] = set()
        _prepare(self.reader)
        self._let_go_at_once()

    async def close(self) -> None:
        await self.reader.dispose()
        if self._leaving:  # their threads would answer a loop that is closed
            await asyncio.wait(self._leaving, timeout=LEAVE_S)

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[None]:
        """One at a time, in order: those who meet in SQLite sleep there, up to a tenth of a second at a time."""
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_MS / 1000):
                await self._one_writer.acquire()
        except TimeoutError:
            raise sqlite3.OperationalError("database is locked") from None
        try:
            yield
        finally:
            self._one_writer.release()

    async def lock(self, connection: AsyncConnection, scope: str | None) -> None:
        """BEGIN IMMEDIATE has locked the whole file."""

    async def check_new(self, connection: AsyncConnection) -> None:
        """Every SQLite file holds Unicode."""

    def reason(self, error: BaseException) -> str | None:
        for pattern, reason in _REASONS:
            if re.search(pattern, str(error), re.IGNORECASE):
                return reason
        return None

    def is_away(self, error: BaseException) -> bool:
        return False  # SQLite waits by itself: busy_timeout

    def _let_go_at_once(self) -> None:
        """How the connection of a task that was cancelled is given up: without waiting for anything.

        SQLAlchemy closes it in a task of its own, and where that is cancelled too, as at the end of a program,
        aiosqlite waits for an answer of its thread that has ended: the program would never end.
        """
        dialect = self.reader.sync_engine.dialect
        terminate = dialect.do_terminate

        def stop(connection: Any) -> None:
            driver = connection.driver_connection
            if not hasattr(driver, "stop"):  # it is aiosqlite's
                terminate(connection)
            elif (stopped := driver.stop()) is not None:
                self._leaving.add(stopped)
                stopped.add_done_callback(self._leaving.discard)

        dialect.do_terminate = stop  # type: ignore[assignment]


def _own_connection(url: URL) -> dict[str, Any]:
    """Our connection, but for an URL that names another driver."""
    return {"async_creator_fn": connect} if url.drivername == "sqlite+aiosqlite" else {}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the folder {folder}: {error.strerror}.") from None


def _write_ahead(connection: Any, cursor: Any) -> None:
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
        connection.run_async(lambda driver: asyncio.sleep(0.01))


def _prepare(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver must not begin transactions of its own: they would start as readers and fail to become
        # writers when another process writes in between.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _write_ahead(connection, cursor)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # what is deleted or written over leaves no bytes in the file
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("chatbot_write")
        connection.exec_driver_sql(BEGIN_WRITING if write else BEGIN)
