"""What differs between the kinds of database, behind one seam."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Backend(Protocol):
    """One kind of database: how it is opened, how writers keep out of each other's way, and what its errors mean.

    `shown` names the database to a person, without its password; `elsewhere` says how to choose another.
    Connections of `reader` see one state of the database; those of `writer` are to be locked before anything else,
    and so are those of `migrator`, whose statements may take long.
    `errors` are those of the driver that SQLAlchemy lets through as they are.
    """

    shown: str
    elsewhere: str
    reader: AsyncEngine
    writer: AsyncEngine
    migrator: AsyncEngine
    errors: tuple[type[Exception], ...]

    async def close(self) -> None:
        """Give every connection back."""

    def queue(self) -> AbstractAsyncContextManager[Any]:
        """Where writers of this process await their turn, before they take a connection."""

    async def lock(self, connection: AsyncConnection, scope: str | None) -> None:
        """Let no one else write, in `scope` or at all, until the transaction of `connection` ends.

        What is read after it is the last that was committed.
        """

    async def check_new(self, connection: AsyncConnection) -> None:
        """Raises StorageError where tables made here could not hold any text."""

    def reason(self, error: BaseException) -> str | None:
        """The rest of a sentence that begins with the database and says what is wrong and what to do."""

    def is_away(self, error: BaseException) -> bool:
        """Whether the database may be back in a moment."""
