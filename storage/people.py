"""Whose conversations they are: people, by the platform they come from and what it calls them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, not_, select, update

from storage.database import Database
from storage.errors import NotFoundError
from storage.schema import authors, people

LOCAL = "local"
"""Id and platform of the person at this machine, who is there from the start."""


@dataclass(frozen=True, slots=True)
class Person:
    """`external_id` is what the platform calls the person; `name`, what the person is called.

    `may_learn`: the person allowed that models learn from what is said.
    """

    id: str
    platform: str
    external_id: str
    name: str
    may_learn: bool = False


_CALLED = select(people).where(
    people.c.platform == bindparam("on_platform"), people.c.external_id == bindparam("called")
)
_ADD = insert(people)


class People:
    """Everyone who ever spoke with us."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_or_add(self, platform: str, external_id: str, name: str = "") -> Person:
        """The person whom `platform` calls `external_id`; a name that changed is kept."""
        return await self._database.change(None, _get_or_add, platform, external_id, name)

    async def get(self, person_id: str) -> Person:
        """Raises NotFoundError where nobody has that id."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(people).where(people.c.id == person_id))).one_or_none()
        if row is None:
            raise NotFoundError(f"Nobody is known under the id '{person_id}'.")
        return _person(row)

    async def find(self, platform: str, external_id: str = "") -> Person:
        """Raises NotFoundError where nobody is called that there."""
        person = await self._database.query(_find, platform, external_id)
        if person is None:
            raise NotFoundError(f"Nobody called '{external_id}' is known on {platform}.")
        return person

    async def of(self, platform: str) -> Sequence[Person]:
        """Everyone of a platform."""
        query = select(people).where(people.c.platform == platform).order_by(people.c.external_id)
        async with self._database.read() as connection:
            return [_person(row) for row in await connection.execute(query)]

    async def allow_learning(self, person_id: str, allowed: bool) -> None:
        """Say whether models may learn from what a person says. Raises NotFoundError."""
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(people).where(people.c.id == person_id).values(may_learn=allowed)
            )
        if not changed.rowcount:
            raise NotFoundError(f"Nobody is known under the id '{person_id}'.")

    async def who_allow_learning(self) -> set[str]:
        """Ids of the people who allowed it."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(people.c.id).where(people.c.may_learn))).scalars())

    async def messages_withheld(self) -> set[str]:
        """Ids of messages of several people's conversations whose authors did not allow it."""
        query = select(authors.c.message_id).join(people).where(not_(people.c.may_learn))
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())


def _person(row: Row[Any]) -> Person:
    return Person(row.id, row.platform, row.external_id, row.name, row.may_learn)


def _fields(person: Person) -> dict[str, Any]:
    return {name: getattr(person, name) for name in Person.__dataclass_fields__}


def _find(connection: Connection, platform: str, external_id: str) -> Person | None:
    row = connection.execute(_CALLED, {"on_platform": platform, "called": external_id}).one_or_none()
    return None if row is None else _person(row)


def _get_or_add(connection: Connection, platform: str, external_id: str, name: str) -> Person:
    person = _find(connection, platform, external_id)
    if person is None:
        person = Person(secrets.token_hex(8), platform, external_id, name)
        connection.execute(_ADD, _fields(person))
    elif name and name != person.name:
        connection.execute(update(people).where(people.c.id == person.id).values(name=name))
        return replace(person, name=name)
    return person
