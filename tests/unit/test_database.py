"""Opening the database: made, migrated, or refused in a sentence."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from storage.conversations import Conversations
from storage.database import Database
from storage.errors import StorageError
from storage.threads import Workers


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def test_a_file_is_in_wal_mode_with_foreign_keys(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path / "chatbot.db")) as database, database.read() as connection:
        for pragma, value in (("journal_mode", "wal"), ("foreign_keys", 1), ("busy_timeout", 15_000)):
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() == value


async def test_several_may_open_a_new_database_at_once(new_url: str) -> None:
    opened = await asyncio.gather(*(Database.open(new_url) for _ in range(6)))
    await Conversations(opened[0]).create("")
    assert len(await Conversations(opened[-1]).list()) == 1
    for database in opened:
        await database.close()


async def test_several_processes_may_open_a_new_database_at_once(new_url: str) -> None:
    code = (
        "import asyncio, sys; from storage.database import Database\n"
        "async def main(): await (await Database.open(sys.argv[1])).close()\n"
        "asyncio.run(main())"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, new_url], stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[1] for process in started] == [b""] * 3
    assert [process.returncode for process in started] == [0] * 3


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    async with await Database.open(database_url) as database, database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match=r"newer version.*(CHATBOT_HOME|CHATBOT_DATABASE_URL)"):
        await Database.open(database_url)


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


DAMAGED = """
import asyncio, sys
from storage.database import Database
from storage.errors import StorageError

async def main():
    try:
        await Database.open(sys.argv[1])
    except StorageError as error:
        print("damaged" in str(error))

for _ in range(20):
    asyncio.run(main())
"""


def test_a_damaged_file_is_refused_without_a_word_from_its_thread(tmp_path: Path) -> None:
    (tmp_path / "chatbot.db").write_bytes(b"garbage " * 1000)
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, url(tmp_path / "chatbot.db")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n" * 20, "")


CANCELLED = """
import asyncio, random, sys
from sqlalchemy import Connection, Engine, insert, select, text
from storage.database import Database

async def use(database):
    async with database.write() as connection:
        for number in range(20):
            await connection.execute(text("SELECT 1"))
    async with database.read() as connection:
        await connection.execute(text("SELECT 1"))

async def main():
    random.seed(int(sys.argv[2]))
    database = await Database.open(sys.argv[1])
    for _ in range(30):
        tasks = [asyncio.create_task(use(database)) for _ in range(3)]
        await asyncio.sleep(random.random() * 0.01)
        for task in tasks:
            task.cancel()
        if random.random() < 0.7:
            await asyncio.sleep(random.random() * 0.005)
    # ends in the middle of it, as a chat that is left
asyncio.run(main())
print("ended")
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_program_ends_though_its_work_was_cancelled_in_the_middle(tmp_path: Path, seed: int) -> None:
    url = f"sqlite:///{tmp_path / 'chatbot.db'}"
    done = subprocess.run(
        [sys.executable, "-c", CANCELLED, url, str(seed)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ended\n", done.stderr


async def test_any_number_of_rows_comes_whole_and_in_order(tmp_path: Path) -> None:
    numbers = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most) SELECT i FROM n")
    async with await Database.open(url(tmp_path / "chatbot.db")) as database, database.read() as connection:
        for most in (1, 100, 5003):
            wanted = list(range(1, most + 1))
            assert list((await connection.execute(numbers, {"most": most})).scalars()) == wanted
        assert (await connection.execute(numbers, {"most": 2})).first() == (1,)


async def test_a_statement_takes_one_turn_of_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    take = Workers.do

    async def counted(self: Workers, work: Callable[[], object]) -> object:
        turns.append(work)
        return await take(self, work)

    async with await Database.open(url(tmp_path / "chatbot.db")) as database:
        await Conversations(database).create("first")
        monkeypatch.setattr(Workers, "do", counted)
        async with database.read() as connection:
            assert len((await connection.execute(text("SELECT system FROM conversations"))).all()) == 1
        assert len(turns) == 1
        turns.clear()
        async with database.write() as connection:
            await connection.execute(text("UPDATE conversations SET system = 'second'"))
        assert len(turns) == 2, "the statement and the commit"
        with pytest.raises(ZeroDivisionError):
            async with database.write() as connection:
                await connection.execute(text("UPDATE conversations SET system = 'third'"))
                1 / 0  # noqa: B018 - whatever raises
        monkeypatch.undo()
        assert [one.system for one in await Conversations(database).list()] == ["second"]


async def test_what_was_read_alone_holds_nothing_back(tmp_path: Path) -> None:
    """A reader that stays in its transaction keeps the log from being emptied."""
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:
        await Conversations(database).create("")
        assert await Conversations(database).list()
        with closing(sqlite3.connect(tmp_path / "chatbot.db")) as other:
            busy, in_log, emptied = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (busy, in_log, emptied) == (0, 0, 0)


async def test_what_follows_a_statement_that_could_not_begin_is_in_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.BUSY_TIMEOUT_MS", 50)
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:
        await Conversations(database).create("first")
        change = text("UPDATE conversations SET system = 'second'")
        with closing(sqlite3.connect(tmp_path / "chatbot.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ZeroDivisionError):
                async with database.write() as connection:
                    with pytest.raises(DBAPIError, match="locked"):
                        await connection.execute(change)
                    other.execute("ROLLBACK")
                    await connection.execute(change)
                    1 / 0  # noqa: B018 - whatever raises
        assert [one.system for one in await Conversations(database).list()] == ["first"]


async def test_to_close_it_twice_does_no_harm(tmp_path: Path) -> None:
    database = await Database.open(url(tmp_path / "chatbot.db"))
    await database.close()
    async with asyncio.timeout(5):
        await database.close()


async def test_writers_who_are_kept_waiting_hold_up_no_reader(tmp_path: Path) -> None:
    """More than there are threads wait for a lock of another program; who reads does not wait with them."""
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:
        kept = Conversations(database)
        await kept.create("first")
        with closing(sqlite3.connect(tmp_path / "chatbot.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writers = [asyncio.create_task(kept.create(str(number))) for number in range(20)]
            async with asyncio.timeout(5):
                for _ in range(50):
                    assert len(await kept.list()) == 1
            other.execute("ROLLBACK")
        await asyncio.gather(*writers)
        assert len(await kept.list()) == 21


async def test_any_number_may_read_at_once(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:

        async def read() -> int:
            async with database.read() as connection:
                return int((await connection.execute(text("SELECT count(*) FROM conversations"))).scalar_one())

        async with asyncio.timeout(20):
            assert await asyncio.gather(*(read() for _ in range(500))) == [0] * 500


SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT count(*) FROM n"
)


async def test_slow_readers_hold_up_no_writer(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:

        async def search() -> None:
            async with database.read() as connection:
                await connection.execute(SLOW)

        searches = [asyncio.create_task(search()) for _ in range(4)]
        await asyncio.sleep(0.1)
        await Conversations(database).create("first")
        assert not any(task.done() for task in searches), "it was written while they searched"
        for task in searches[:3]:
            task.cancel()
        await asyncio.wait(searches)
        assert len(await Conversations(database).list()) == 1


def test_what_is_closed_leaves_all_in_the_file(tmp_path: Path) -> None:
    async def use() -> None:
        async with await Database.open(url(tmp_path / "chatbot.db")) as database:
            await Conversations(database).create("")
            await asyncio.gather(*(Conversations(database).list() for _ in range(20)))

    for _ in range(30):
        asyncio.run(use())
        assert not (tmp_path / "chatbot.db-wal").exists()


@pytest.mark.parametrize(
    "odd", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite://data/chatbot.db"]
)
async def test_a_url_without_a_file_is_said(odd: str) -> None:
    with pytest.raises(StorageError, match="database URL"):
        await Database.open(odd)


async def test_cancelled_readers_hold_one_thread_each(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path / "chatbot.db")) as database:

        async def search() -> None:
            async with database.read() as connection:
                await connection.execute(SLOW)

        searches = [asyncio.create_task(search()) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in searches:
            task.cancel()
        await asyncio.gather(*searches, return_exceptions=True)
        began = time.monotonic()
        for _ in range(10):
            await Conversations(database).list()
        quick = time.monotonic() - began
        async with database.read() as connection:
            await connection.execute(SLOW)
        assert quick < time.monotonic() - began - quick, "nobody waited for what was cancelled"
