"""Opening the database: made, migrated, or refused in a sentence."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from storage.conversations import Conversations
from storage.database import Database
from storage.errors import StorageError
from storage.schema import metadata


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_the_migrations_make_what_the_schema_says(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_database_is_in_wal_mode_with_foreign_keys(database: Database) -> None:
    async with database.read() as connection:
        for pragma, value in (("journal_mode", "wal"), ("foreign_keys", 1), ("busy_timeout", 15_000)):
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() == value


async def test_several_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "chatbot.db"
    opened = await asyncio.gather(*(Database.open(url(path)) for _ in range(6)))
    await Conversations(opened[0]).create("")
    assert len(await Conversations(opened[-1]).list()) == 1
    for database in opened:
        await database.close()


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chatbot.db"
    await (await Database.open(url(path))).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer version"):
        await Database.open(url(path))


@pytest.mark.parametrize("damage", [b"this was never a database, but long enough to be read as one" * 9, None])
async def test_a_damaged_database_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "chatbot.db"
    if damage is None:  # pages of a real one overwritten
        await (await Database.open(url(path))).close()
        content = bytearray(path.read_bytes())
        content[100:] = os.urandom(len(content) - 100)
        path.write_bytes(content)
    else:
        path.write_bytes(damage)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="damaged"):
        await Database.open(url(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("wrong", ["nonsense", "oracle+nodriver://x/y"])
async def test_a_url_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(StorageError):
        await Database.open(wrong)


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="folder"):
        await Database.open(url(tmp_path / "file" / "chatbot.db"))
