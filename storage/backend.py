"""What differs between the kinds of database, behind one seam."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class Backend(Protocol):
    """One kind of database: how it is opened, how writers keep out of each other's way, and what its errors mean.

    `shown` names the database to a person, without its password; `elsewhere` says how to choose another.
    `errors` are those of the driver that SQLAlchemy lets through as they are. Where the database is away, it is
    asked again for `patience_s` seconds.
    """

    shown: str
    elsewhere: str
    errors: tuple[type[Exception], ...]
    patience_s: float

    async def close(self) -> None:
        """Give every connection back."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection that sees one state of the database."""

    def writing(self, scope: str | None) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction beside which no one else writes, in `scope` or at all: committed, or undone where it raises.

        What is read in it is the last that was committed.
        """

    async def query(self, work: Callable[[Connection], T]) -> T:
        """What `work`, which is short, finds in one state of the database."""

    async def change(self, scope: str | None, work: Callable[[Connection], T]) -> T:
        """Do `work`, which is short, in a transaction as of `writing`. It may be undone and done once more."""

    def migrating(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """As `writing` without a scope; a statement may take long."""

    async def check_new(self, connection: AsyncConnection) -> None:
        """Raises StorageError where tables made here could not hold any text."""

    def reason(self, error: BaseException) -> str | None:
        """The rest of a sentence that begins with the database and says what is wrong and what to do."""

    def is_away(self, error: BaseException) -> bool:
        """Whether the database may be back in a moment."""


def cause(error: BaseException) -> BaseException:
    """What the driver raised, below what SQLAlchemy made of it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
