"""The one place that opens the database: pragmas, migrations, and errors said to a person."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.errors import StorageError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 15_000


class Database:
    """An open database, at the newest schema.

    Any SQLAlchemy URL with an async driver is taken; another SQLite driver (an encrypting one, say) is
    another URL. Several processes may use one database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(chatbot_write=True)

    @classmethod
    async def open(cls, url: str | Path) -> Database:
        """Open the database at `url`, or the SQLite file; make it where there is none, and bring it up to date.

        Raises:
            StorageError: it cannot be opened, is damaged, or was made by a newer version of this program.
        """
        try:
            parsed = make_url(url) if isinstance(url, str) else URL.create("sqlite+aiosqlite", database=str(url))
        except ArgumentError:
            raise StorageError("The database URL is not one; it looks like sqlite+aiosqlite:///FILE.") from None
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            _make_folder(Path(parsed.database).parent)
        try:
            engine = create_async_engine(parsed)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StorageError(f"No driver for the database URL: {error}.") from None
        except (InvalidRequestError, ValueError, TypeError) as error:
            raise StorageError(f"The database URL cannot be used: {error}") from None
        if parsed.get_backend_name() == "sqlite":
            _prepare_sqlite(engine)
        database = cls(engine)
        try:
            await database._migrate(parsed)
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, ValueError | TypeError):  # a driver that cannot read its part of the URL
                raise StorageError(f"The database URL cannot be used: {error}.") from None
            raise
        return database

    async def close(self) -> None:
        await self._engine.dispose()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the database."""
        with _said_to_a_person(self._engine.url):
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, or undone where it raises."""
        with _said_to_a_person(self._engine.url):
            async with self._writer.begin() as connection:
                yield connection

    async def _migrate(self, url: URL) -> None:
        # Alembic takes half a second to import: only a database that needs it pays.
        known = {path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
        async with self.read() as connection:
            present = await connection.run_sync(_revision)
        if present == max(known):
            return
        async with self.write() as connection:  # one process migrates, the others wait and find it done
            present = await connection.run_sync(_revision)
            if present is not None and present not in known:
                raise StorageError(
                    f"The database {_shown(url)} was made by a newer version of chatbot; "
                    "update chatbot, or set CHATBOT_HOME to another folder."
                )
            if present != max(known):
                await connection.run_sync(_upgrade)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the folder {folder}: {error.strerror}.") from None


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver must not begin transactions of its own: they would start as readers and fail to become
        # writers when another process writes in between.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("chatbot_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _shown(url: URL) -> str:
    return url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


_REASONS = (
    (r"readonly|read-only", "cannot be written: it is read-only; change its permissions or set CHATBOT_HOME"),
    (r"not a database|malformed|file is encrypted", "is damaged; move it away, or put a copy of yours back"),
    (r"disk is full|no space", "cannot be written: the disk is full; make room and try again"),
    (r"unable to open", "cannot be opened; check that its folder is there and yours to write"),
    (r"disk i/o error", "cannot be read or written: the disk reports an error"),
    (r"locked", "is locked by another program for too long; close that and try again"),
)


@contextmanager
def _said_to_a_person(url: URL) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError) as error:
        cause = getattr(error, "orig", None) or error
        for pattern, reason in _REASONS:
            if re.search(pattern, str(cause), re.IGNORECASE):
                raise StorageError(f"The database {_shown(url)} {reason}.") from error
        raise StorageError(f"The database {_shown(url)} failed: {cause}.") from error
