"""The table of model versions, and which of them answered when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import NotFoundError, StorageError
from storage.schema import activations, versions

Kind = Literal["gpt", "aigc", "encoder", "teacher"]
State = Literal["candidate", "current", "retired", "failed"]
Action = Literal["use", "promote", "rollback"]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model. `settings` holds what an engine needs to load it, and how it was trained."""

    kind: Kind
    name: str
    version: str
    folder: str
    checksum: str
    code_version: str
    state: State = "candidate"
    parent: str | None = None
    data_fingerprint: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Activation:
    """A change of what answers. `undone`: rolled back since."""

    kind: Kind
    ref: str
    action: Action
    undone: bool
    created: datetime


_COLUMNS = [versions.c[name] for name in Version.__dataclass_fields__]


def _version(row: Row[Any]) -> Version:
    return Version(**{name: row._mapping[name] for name in Version.__dataclass_fields__})


class Versions:
    """Registered versions. The activations of a kind are a stack: the last one that is not undone answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, version: Version) -> None:
        """Register a version. Raises StorageError where that name and version stand already."""
        async with self._database.write() as connection:
            if await _id(connection, version.name, version.version) is not None:
                raise StorageError(f"{version.ref} is registered already.")
            fields = {name: getattr(version, name) for name in Version.__dataclass_fields__}
            await connection.execute(insert(versions).values(**fields))

    async def add_or_find(self, version: Version) -> Version:
        """Register a version, or give the one that stands under its name and version already."""
        query = select(*_COLUMNS).where(versions.c.name == version.name, versions.c.version == version.version)
        async with self._database.write() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is not None:
                return _version(row)
            fields = {name: getattr(version, name) for name in Version.__dataclass_fields__}
            await connection.execute(insert(versions).values(**fields))
        return version

    async def set_settings(self, version: Version) -> None:
        """Store the settings of a version that stands already."""
        where = (versions.c.name == version.name, versions.c.version == version.version)
        async with self._database.write() as connection:
            await connection.execute(update(versions).where(*where).values(settings=version.settings))

    async def list(self, kind: Kind | None = None) -> Sequence[Version]:
        query = select(*_COLUMNS).order_by(versions.c.kind, versions.c.name, versions.c.id)
        if kind is not None:
            query = query.where(versions.c.kind == kind)
        async with self._database.read() as connection:
            return [_version(row) for row in await connection.execute(query)]

    async def current(self, kind: Kind) -> Version | None:
        query = select(*_COLUMNS).where(versions.c.kind == kind, versions.c.state == "current")
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _version(row)

    async def activate(self, name: str, version: str, action: Literal["use", "promote"]) -> None:
        """Let a version answer from now on. Raises NotFoundError where it is not registered."""
        async with self._database.write() as connection:
            number = await _known(connection, name, version)
            query = select(versions.c.kind).where(versions.c.id == number)
            kind = (await connection.execute(query)).scalar_one()
            await _set_current(connection, kind, number)
            await _log(connection, kind, number, action, undone=False)

    async def rollback(self, kind: Kind) -> Version | None:
        """Let the version before the current one answer again; None: the default, as before any was chosen.

        Raises StorageError where nothing was chosen yet.
        """
        async with self._database.write() as connection:
            if await _roll_back(connection, kind) is None:
                raise StorageError(f"There is no {kind} version to roll back from: none was ever chosen.")
        return await self.current(kind)

    async def is_promoted(self, version: Version) -> bool:
        """Whether it answers because it was promoted, and not because a person chose it."""
        async with self._database.read() as connection:
            last = (await connection.execute(_stack(version.kind).limit(1))).one_or_none()
            number = await _id(connection, version.name, version.version)
        return last is not None and last.version_id == number and last.action == "promote"

    async def fail(self, version: Version) -> bool:
        """Mark a promoted version that answers as failed, and let the one before answer again.

        False where it does not answer any more, or was chosen by a person.
        """
        async with self._database.write() as connection:
            number = await _id(connection, version.name, version.version)
            last = (await connection.execute(_stack(version.kind).limit(1))).one_or_none()
            if last is None or last.version_id != number or last.action != "promote":
                return False
            await _roll_back(connection, version.kind)
            await connection.execute(update(versions).where(versions.c.id == number).values(state="failed"))
        return True

    async def remove(self, name: str, version: str) -> None:
        """Forget a version and its activations. Raises StorageError where it is the current one."""
        async with self._database.write() as connection:
            number = await _known(connection, name, version)
            state = select(versions.c.state).where(versions.c.id == number)
            if (await connection.execute(state)).scalar_one() == "current":
                raise StorageError(f"{name}@{version} is in use; `chatbot models use` another first.")
            await connection.execute(delete(versions).where(versions.c.id == number))

    async def history(self, kind: Kind) -> Sequence[Activation]:
        """What answered when, the newest first. A roll-back names the version it undid."""
        query = (
            select(activations, versions.c.name, versions.c.version)
            .join(versions, versions.c.id == activations.c.version_id)
            .where(activations.c.kind == kind)
            .order_by(activations.c.id.desc())
        )
        async with self._database.read() as connection:
            return [
                Activation(row.kind, f"{row.name}@{row.version}", row.action, row.undone, row.created)
                for row in await connection.execute(query)
            ]


def _stack(kind: str) -> Select[Any]:
    """What was chosen and not undone since, the newest first."""
    query = select(activations.c.id, activations.c.version_id, activations.c.action)
    return query.where(activations.c.kind == kind, ~activations.c.undone).order_by(activations.c.id.desc())


async def _roll_back(connection: AsyncConnection, kind: str) -> int | None:
    """Undo the last choice; gives the number of the version it was, or None where nothing was chosen."""
    rows = (await connection.execute(_stack(kind).limit(2))).all()
    if not rows:
        return None
    last, before = rows[0], rows[1] if len(rows) > 1 else None
    await connection.execute(update(activations).where(activations.c.id == last.id).values(undone=True))
    await _set_current(connection, kind, None if before is None else before.version_id)
    await _log(connection, kind, last.version_id, "rollback", undone=True)
    return int(last.version_id)


async def _id(connection: AsyncConnection, name: str, version: str) -> int | None:
    query = select(versions.c.id).where(versions.c.name == name, versions.c.version == version)
    return (await connection.execute(query)).scalar()


async def _known(connection: AsyncConnection, name: str, version: str) -> int:
    number = await _id(connection, name, version)
    if number is None:
        raise NotFoundError(f"There is no version {name}@{version}; `chatbot models list` shows them.")
    return number


async def _set_current(connection: AsyncConnection, kind: str, number: int | None) -> None:
    await connection.execute(
        update(versions).where(versions.c.kind == kind, versions.c.state == "current").values(state="retired")
    )
    if number is not None:
        await connection.execute(update(versions).where(versions.c.id == number).values(state="current"))


async def _log(connection: AsyncConnection, kind: str, number: int, action: Action, *, undone: bool) -> None:
    await connection.execute(
        insert(activations).values(
            kind=kind, version_id=number, action=action, undone=undone, created=datetime.now(UTC)
        )
    )
