"""Lets nothing stay in the files of the database of what was deleted from its tables."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import StorageError

PATIENCE_S = 3.0
"""How long another process may go on reading an old state before we go on without the log being emptied."""


async def clear_index(connection: AsyncConnection) -> None:
    """Take what was deleted out of the search index, in the transaction that deleted it.

    FTS5 marks as deleted, and drops when it merges. Merging all drops all, in a fifth of the time that building anew
    takes: SQLite 3.40 has no secure-delete of its own for it.
    """
    if connection.dialect.name == "sqlite":
        await connection.execute(text("INSERT INTO messages_index (messages_index) VALUES ('optimize')"))


async def clear_log(database: Database) -> bool:
    """Empty SQLite's write-ahead log, which holds the pages as they were; False where others kept that from being.

    Other back ends free what was deleted by themselves.
    """
    async with database.read() as connection:
        if connection.dialect.name != "sqlite":
            return True
        driver: Any = (await connection.get_raw_connection()).driver_connection
        cursor = await driver.execute("PRAGMA busy_timeout")
        [before] = await cursor.fetchone()
        try:
            await driver.execute("PRAGMA busy_timeout = 100")
            for _ in range(int(PATIENCE_S / 0.2)):
                cursor = await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy, _, _ = await cursor.fetchone()
                if not busy:
                    return True
                await asyncio.sleep(0.1)
            return False
        finally:
            with suppress(StorageError):
                await driver.execute(f"PRAGMA busy_timeout = {before}")
