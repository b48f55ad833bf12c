"""The one place that opens the database: which kind it is, migrations, and errors said to a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Table, insert, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.backend import Backend
from storage.errors import ConnectionLostError, StorageError
from storage.postgres import Postgres
from storage.sqlite import Sqlite

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_S = 15
RETRY_S = 0.25
_AT_ONCE = 500

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """An open database, at the newest schema: an SQLite file, or a database of a PostgreSQL server.

    Several processes may use one database.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._patience_s = 0

    @classmethod
    async def open(cls, url: str | Path) -> Database:
        """Open the database at `url`, or the SQLite file; make it where there is none, and bring it up to date.

        Raises:
            StorageError: it cannot be opened, is damaged, or was made by a newer version of this program.
        """
        database = cls(_backend(url))
        try:
            await database._migrate()
        except BaseException as error:
            await database.close()
            if isinstance(error, ValueError | TypeError):  # a driver that cannot read its part of the URL
                raise StorageError(f"The database URL cannot be used: {error}.") from None
            raise
        database._patience_s = PATIENCE_S  # it was there: if it goes away, it may come back
        return database

    async def close(self) -> None:
        await self._backend.close()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the database."""
        with self._said_to_a_person():
            async with AsyncExitStack() as stack:
                yield await self._connect(stack, self._backend.reader)

    @asynccontextmanager
    async def write(self, scope: str | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, or undone where it raises.

        None of the same scope runs beside it, and one without a scope runs alone: what it has read holds until
        it ends. A scope is a word, such as the id of the conversation that is touched and no other.
        """
        async with self._write(self._backend.writer, scope) as connection:
            yield connection

    @asynccontextmanager
    async def _write(self, engine: AsyncEngine, scope: str | None) -> AsyncIterator[AsyncConnection]:
        async def begin(connection: AsyncConnection) -> None:
            await connection.begin()
            await self._backend.lock(connection, scope)

        with self._said_to_a_person():
            async with self._backend.queue(), AsyncExitStack() as stack:
                connection = await self._connect(stack, engine, begin)
                yield connection
                await connection.commit()

    async def _connect(
        self,
        stack: AsyncExitStack,
        engine: AsyncEngine,
        begin: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> AsyncConnection:
        """Nothing has been done yet: where the database is away, it is asked again until it is back."""
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                connection = await stack.enter_async_context(engine.connect())
                if begin is not None:
                    await begin(connection)
                return connection
            except Exception as error:
                await stack.aclose()
                if time.monotonic() > give_up or not self._backend.is_away(_cause(error)):
                    raise
            await asyncio.sleep(RETRY_S)

    async def _migrate(self) -> None:
        # Alembic takes half a second to import: only a database that needs it pays.
        known = {path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
        async with self.read() as connection:
            present = await connection.run_sync(_revision)
        if present == max(known):
            return
        async with self._write(
            self._backend.migrator, None
        ) as connection:  # one process migrates, the others wait and find it done
            present = await connection.run_sync(_revision)
            if present is not None and present not in known:
                raise StorageError(
                    f"The database {self._backend.shown} was made by a newer version of chatbot; "
                    f"update chatbot, or {self._backend.elsewhere}."
                )
            if present is None:
                await self._backend.check_new(connection)
            if present != max(known):
                await connection.run_sync(_upgrade)

    @contextmanager
    def _said_to_a_person(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise StorageError(f"The database {self._backend.shown} is busy; try again.") from error
        except Exception as error:
            if not isinstance(error, DBAPIError | OSError) and not isinstance(error, self._backend.errors):
                raise
            cause = _cause(error)
            kind = ConnectionLostError if self._backend.is_away(cause) else StorageError
            reason = self._backend.reason(cause) or f"failed: {cause}"
            raise kind(f"The database {self._backend.shown} {reason}.") from error


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert any number of rows; some hundred at once, so that no statement takes long."""
    for begin in range(0, len(rows), _AT_ONCE):
        await connection.execute(insert(table), rows[begin : begin + _AT_ONCE])


def once_more_if_lost(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """For a transaction that may run twice without harm: it does where the database went away in its middle."""

    @wraps(method)
    async def run(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await method(*arguments, **named)
        except ConnectionLostError:
            return await method(*arguments, **named)

    return run


def _backend(url: str | Path) -> Backend:
    try:
        parsed = make_url(url) if isinstance(url, str) else URL.create("sqlite+aiosqlite", database=str(url))
        if "@" in (parsed.host or ""):  # one of the password
            raise ValueError
    except (ArgumentError, ValueError):  # what it says may hold a part of the password
        raise StorageError(
            "The database URL is not one; it looks like postgresql://USER:PASSWORD@HOST/DATABASE "
            "or sqlite+aiosqlite:///FILE, with what is odd in a password percent-encoded."
        ) from None
    try:
        if parsed.drivername in ("postgresql", "postgresql+asyncpg", "postgres"):
            return Postgres(parsed)
        if parsed.drivername.startswith("sqlite"):
            return Sqlite(parsed)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageError(f"No driver for the database URL: {error}.") from None
    except (InvalidRequestError, ValueError, TypeError) as error:
        raise StorageError(f"The database URL cannot be used: {error}") from None
    raise StorageError(
        f"The database URL cannot be used: {parsed.drivername} is neither postgresql nor sqlite+aiosqlite."
    )


def _cause(error: BaseException) -> BaseException:
    """What the driver raised, below what SQLAlchemy made of it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


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
