"""The one place that opens the database: which kind it is, migrations, and errors said to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Table, insert, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.backend import Backend, cause
from storage.errors import ConnectionLostError, StorageError
from storage.postgres import Postgres
from storage.sqlite import Sqlite

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_S = 15
_AT_ONCE = 500

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """An open database, at the newest schema: an SQLite file, or a database of a PostgreSQL server.

    Several processes may use one database.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    async def open(cls, url: str | Path) -> Database:
        """Open the database at `url`, or the SQLite file; make it where there is none, and bring it up to date.

        Raises:
            StorageError: it cannot be opened, is damaged, or was made by a newer version of this program.
        """
        database = cls(backend_of(url))
        try:
            await database._migrate()
        except BaseException as error:
            await database.close()
            if isinstance(error, ValueError | TypeError):  # a driver that cannot read its part of the URL
                raise StorageError(f"The database URL cannot be used: {error}.") from None
            raise
        database._backend.patience_s = PATIENCE_S  # it was there: if it goes away, it may come back
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
            async with self._backend.reading() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, scope: str | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block, or undone where it raises.

        None of the same scope runs beside it, and one without a scope runs alone: what it has read holds until
        it ends. A scope is a word, such as the id of the conversation that is touched and no other.
        """
        with self._said_to_a_person():
            async with self._backend.writing(scope) as connection:
                yield connection

    async def query(self, work: Callable[Concatenate[Connection, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `work` reads. For what is short: others may wait for it."""
        with self._said_to_a_person():
            return await self._backend.query(lambda connection: work(connection, *arguments, **named))

    async def change(
        self,
        scope: str | None,
        work: Callable[Concatenate[Connection, P], T],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> T:
        """What `work` returns, done in a transaction as of `write`. For what is short: it may share one with others,
        and so be undone and done once more."""
        with self._said_to_a_person():
            return await self._backend.change(scope, lambda connection: work(connection, *arguments, **named))

    async def _migrate(self) -> None:
        # Alembic takes half a second to import: only a database that needs it pays.
        known = {path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}
        async with self.read() as connection:
            present = await connection.run_sync(_revision)
        if present == max(known):
            return
        with self._said_to_a_person():
            await self._bring_up_to_date(known)

    async def _bring_up_to_date(self, known: set[str]) -> None:
        async with self._backend.migrating() as connection:  # one process does, the others wait and find it done
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
            came_of = cause(error)
            kind = ConnectionLostError if self._backend.is_away(came_of) else StorageError
            reason = self._backend.reason(came_of) or f"failed: {came_of}"
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


def backend_of(url: str | Path) -> Backend:
    """The kind of database that `url` names. Raises StorageError where it names none."""
    try:
        parsed = make_url(url) if isinstance(url, str) else URL.create("sqlite", database=str(url))
        if "@" in (parsed.host or ""):  # one of the password
            raise ValueError
    except (ArgumentError, ValueError):  # what it says may hold a part of the password
        raise StorageError(
            "The database URL is not one; it looks like postgresql://USER:PASSWORD@HOST/DATABASE "
            "or sqlite:///FILE, with what is odd in a password percent-encoded."
        ) from None
    try:
        if parsed.drivername in ("postgresql", "postgresql+asyncpg", "postgres"):
            return Postgres(parsed)
        if parsed.drivername.startswith("sqlite"):
            return Sqlite(parsed)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageError(f"No driver for the database URL: {error}.") from None
    except (ArgumentError, InvalidRequestError, ValueError, TypeError) as error:
        raise StorageError(f"The database URL cannot be used: {error}") from None
    raise StorageError(f"The database URL cannot be used: {parsed.drivername} is neither postgresql nor sqlite.")


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
