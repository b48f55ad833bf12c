"""Lets nothing stay in the files of the database, or beside it, of what was deleted from its tables.

What is to be erased is written down in the transaction that deletes. So a process that is killed in between leaves
nothing behind for good: the next one to open the database goes on with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, Select, delete, exists, insert, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database, insert_rows
from storage.schema import attachments, erasures

PATIENCE_S = 3.0
"""How long another process may go on reading an old state before we go on without the log being emptied."""

WRITTEN_WITHIN = timedelta(hours=1)
"""A file without a row of its own for longer than this belongs to no message that is just being written."""

_MERGED_AT_ONCE = 250
"""Pages of the search index: some hundredths of a second, in which no one else can write."""

LONGEST_REST_S = 0.05

_AT_ONCE = 500


class Files(Protocol):
    """Where the files of attachments lie."""

    def delete_files(self, attachment_ids: Iterable[str]) -> None: ...


async def erase_traces_later(connection: AsyncConnection) -> None:
    """Note that what this transaction deletes is to be erased from the search index and the log."""
    await connection.execute(insert(erasures).values(file=None))


async def erase_files_later(connection: AsyncConnection, files: Sequence[str]) -> None:
    """Note that the files of some attachments, whose rows this transaction deletes, are to be deleted."""
    await insert_rows(connection, erasures, [{"file": file} for file in files])


async def erase_unless_kept(database: Database, files: Sequence[str]) -> None:
    """Note files that are about to be written, so that a crash leaves none that belongs to no message."""
    if files:
        late = datetime.now(UTC) + WRITTEN_WITHIN
        async with database.write() as connection:
            await insert_rows(connection, erasures, [{"file": file, "not_before": late} for file in files])


async def keep_files(connection: AsyncConnection, files: Sequence[str]) -> None:
    """Note that some files belong to messages now."""
    for begin in range(0, len(files), _AT_ONCE):
        await connection.execute(delete(erasures).where(erasures.c.file.in_(files[begin : begin + _AT_ONCE])))


async def is_unfinished(database: Database) -> bool:
    """Whether something is to be erased."""
    async with database.read() as connection:
        return (await connection.execute(_due().limit(1))).first() is not None


async def erase(database: Database, files: Files, patience_s: float = PATIENCE_S) -> bool:
    """Erase what is noted; False where another process reads an older state, and it stays noted.

    Raises StorageError.
    """
    async with database.read() as connection:
        due = (await connection.execute(_due())).all()
    gone = [row.file for row in due if row.file is not None and not row.kept]
    await asyncio.to_thread(files.delete_files, gone)
    if any(row.file is None for row in due):
        await _clear_index(database)
        if not await _clear_log(database, patience_s):
            return False
    for begin in range(0, len(due), _AT_ONCE):
        ids = [row.id for row in due[begin : begin + _AT_ONCE]]
        async with database.write() as connection:
            await connection.execute(delete(erasures).where(erasures.c.id.in_(ids)))
    return True


def _due() -> Select[Any]:
    late = or_(erasures.c.not_before.is_(None), erasures.c.not_before <= datetime.now(UTC))
    kept = exists().where(attachments.c.id == erasures.c.file).label("kept")
    return select(erasures.c.id, erasures.c.file, kept).where(late)


async def _clear_index(database: Database) -> None:
    """Take what was deleted out of the search index.

    FTS5 marks as deleted, and drops when it merges. Merging all drops all, in a fifth of the time that building anew
    takes: SQLite 3.40 has no secure-delete of its own for it. It takes seconds where there is much, so it is done
    piece by piece, and others write in between.
    """
    pages = -_MERGED_AT_ONCE  # less than nothing begins to merge all with all; more than that goes on with it
    while True:
        began = time.monotonic()
        async with database.write() as connection:
            if connection.dialect.name != "sqlite":
                return
            before = await _changes(connection)
            merge = text("INSERT INTO messages_index (messages_index, rank) VALUES ('merge', :pages)")
            await connection.execute(merge, {"pages": pages})
            if await _changes(connection) - before < 2:  # as FTS5 says that there is nothing left to do
                return
        pages = _MERGED_AT_ONCE
        # SQLite gives the lock to whoever asks next, not to who waits longest: it is left free for about as long.
        await asyncio.sleep(min(time.monotonic() - began, LONGEST_REST_S))


async def _changes(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT total_changes()"))).scalar_one())


async def _clear_log(database: Database, patience_s: float) -> bool:
    """Empty SQLite's write-ahead log, which holds the pages as they were; False where others kept that from being.

    Other back ends free what was deleted by themselves.
    """
    async with database.read() as connection:
        if connection.dialect.name != "sqlite":
            return True
        for _ in range(int(patience_s / 0.2)):
            if await connection.run_sync(_empty_log):
                return True
            await asyncio.sleep(0.1)
        return False


def _empty_log(connection: Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    [before] = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute("PRAGMA busy_timeout = 100")
    try:
        busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        driver.execute(f"PRAGMA busy_timeout = {before}")
