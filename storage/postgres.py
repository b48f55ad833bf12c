"""PostgreSQL: a server, its locks, and what its errors mean."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from storage.backend import cause
from storage.errors import StorageError

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60  # a server that a cut cable hides would be waited for until TCP gives up
LOCK_TIMEOUT_S = 15  # as long as SQLite's busy_timeout
IDLE_TIMEOUT_S = 60  # a writer that was put to sleep in mid transaction keeps no one else waiting for longer
RETRY_S = 0.25
RECYCLE_S = 300  # routers forget connections that are idle for long, and tell nobody

_LOCK_OF_ALL = 0x63686174  # these two name our locks among those of other programs
_LOCK_OF_A_SCOPE = _LOCK_OF_ALL + 1
_SETTINGS = (
    f"set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', true),"
    f" set_config('idle_in_transaction_session_timeout', '{IDLE_TIMEOUT_S}s', true)"
)
_LOCK_ALL = text(f"SELECT {_SETTINGS}, pg_advisory_xact_lock({_LOCK_OF_ALL}, 0)")
_LOCK_SCOPE = text(
    f"SELECT {_SETTINGS}, pg_advisory_xact_lock_shared({_LOCK_OF_ALL}, 0),"
    f" pg_advisory_xact_lock({_LOCK_OF_A_SCOPE}, CAST(:scope AS integer))"
)

_REASONS = {  # by SQLSTATE, or the class that its first two characters are: PostgreSQL, Appendix A
    "28": "refuses the user or the password of its URL; put them right in CHATBOT_DATABASE_URL",
    "3D000": "does not exist on its server; make it there with `createdb`, or put the URL right",
    "25006": "cannot be written: its server only lets it be read; use the URL of the primary one",
    "42501": "refuses this to its user ({cause}); let the user own the database",
    "53100": "cannot be written: the disk of its server is full; make room and try again",
    "53300": "has no connection left for one more client; close another program, or raise max_connections",
    "55P03": "is locked by another program for too long; close that and try again",
    "57P": "lost its connection: the server is starting, stopping or stopped; try again when it is back",
    "08": "lost its connection in the middle of this; try again",
}
_AWAY = ("08", "57P01", "57P02", "57P03")


class Postgres:
    """A `Backend`, through asyncpg. The URL is read as libpq reads it: sslmode, passfile, PGPASSWORD and all."""

    elsewhere = "set CHATBOT_DATABASE_URL to another database"
    patience_s = 0.0

    def __init__(self, url: URL) -> None:
        try:
            import asyncpg  # an extra: whoever has no server does without
        except ModuleNotFoundError:
            raise StorageError(
                "PostgreSQL needs one more library: `pip install asyncpg` where chatbot is installed, "
                "or install it as chatbot[postgres]."
            ) from None
        self.errors: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError)
        dsn = url.set(drivername="postgresql")
        self.shown = _without_passwords(dsn)
        arguments = {"dsn": dsn.render_as_string(hide_password=False), "timeout": CONNECT_TIMEOUT_S}
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={**arguments, "command_timeout": STATEMENT_TIMEOUT_S},
            pool_recycle=RECYCLE_S,
        )
        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # A statement sees what was committed before it began: after the lock, all that others wrote.
        self._writer = engine.execution_options(isolation_level="READ COMMITTED")
        self._migrator = create_async_engine(
            "postgresql+asyncpg://", connect_args=arguments, poolclass=NullPool, isolation_level="READ COMMITTED"
        )

    async def close(self) -> None:
        await self._reader.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            yield await self._connect(stack, self._reader)

    def writing(self, scope: str | None) -> AbstractAsyncContextManager[AsyncConnection]:
        """Writers of different scopes run side by side; one without a scope runs alone, as SQLite's do."""
        return self._transaction(self._writer, scope)

    async def query(self, work: Callable[[Connection], T]) -> T:
        async with self.reading() as connection:
            return await connection.run_sync(work)

    async def change(self, scope: str | None, work: Callable[[Connection], T]) -> T:
        async with self.writing(scope) as connection:
            return await connection.run_sync(work)

    def migrating(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._transaction(self._migrator, None)

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine, scope: str | None) -> AsyncIterator[AsyncConnection]:
        async def begin(connection: AsyncConnection) -> None:
            await connection.begin()
            if scope is None:
                await connection.execute(_LOCK_ALL)
            else:
                number = zlib.crc32(scope.encode(errors="replace")) - 2**31
                await connection.execute(_LOCK_SCOPE, {"scope": number})

        async with AsyncExitStack() as stack:
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
        give_up = time.monotonic() + self.patience_s
        while True:
            try:
                connection = await stack.enter_async_context(engine.connect())
                if begin is not None:
                    await begin(connection)
                return connection
            except Exception as error:
                await stack.aclose()
                if time.monotonic() > give_up or not self.is_away(cause(error)):
                    raise
            await asyncio.sleep(RETRY_S)

    async def check_new(self, connection: AsyncConnection) -> None:
        encoding = (await connection.execute(text("SHOW server_encoding"))).scalar()
        if encoding != "UTF8":
            raise StorageError(
                f"The database {self.shown} keeps text as {encoding}, which cannot hold every character; "
                "make one with `createdb --encoding=UTF8 --template=template0`."
            )

    def reason(self, error: BaseException) -> str | None:
        state = getattr(error, "sqlstate", None) or ""
        for known in (state, state[:3], state[:2]):
            if known in _REASONS:
                return _REASONS[known].format(cause=error)
        if isinstance(error, TimeoutError):
            return "does not answer; check the network, and the host in its URL"
        if isinstance(error, ssl.SSLError) or "SSL" in str(error):
            return f"cannot be reached safely ({error}); check sslmode in its URL"
        if isinstance(error, OSError):
            return "cannot be reached: nothing answers there; start its server, or put the URL right"
        if _is_lost(error):
            return _REASONS["08"]
        return None

    def is_away(self, error: BaseException) -> bool:
        state = getattr(error, "sqlstate", None) or ""
        return state.startswith(_AWAY) or _is_lost(error) or isinstance(error, OSError)


_LOST = ("connection is closed", "closed in the middle", "cannot switch to state")


def _is_lost(error: BaseException) -> bool:
    """asyncpg on a connection that ended before what was asked of it, under it, or at the same moment."""
    return any(words in str(error) for words in _LOST)


def _refuse_closed(connection: Any, record: Any, proxy: Any) -> None:
    """Keep connections that the server has ended out of use; the pool then makes a new one."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _without_passwords(url: URL) -> str:
    hidden = {key: "***" for key in url.query if "password" in key}
    shown = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2F", "/").replace("%2A", "*")
