"""Short work on a database, done together: each piece is done, undone or told as if it were alone."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, insert, select, text

from storage.conversations import Conversations
from storage.database import Database
from storage.errors import NotFoundError, StorageError
from storage.records import Conversation
from storage.schema import conversations
from storage.sqlite_connection import begun
from storage.threads import Workers


def url(path: Path) -> str:
    return f"sqlite:///{path / 'chatbot.db'}"


@contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path / "chatbot.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def _named(connection: Connection, system: str) -> str:
    conversation = Conversation.new(system)
    values = {name: getattr(conversation, name) for name in Conversation.__dataclass_fields__}
    connection.execute(insert(conversations), values)
    return system


def _named_twice(connection: Connection, system: str) -> str:
    _named(connection, f"{system}, not kept")
    raise NotFoundError(system)


def _systems(connection: Connection) -> list[str]:
    return list(connection.execute(select(conversations.c.system).order_by(conversations.c.created)).scalars())


async def test_what_waits_at_the_same_moment_is_done_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = []
    take = Workers.do

    async def counted(self: Workers, work: Callable[[], object]) -> object:
        turns.append(work)
        return await take(self, work)

    async with await Database.open(url(tmp_path)) as database:
        monkeypatch.setattr(Workers, "do", counted)
        numbers = [str(number) for number in range(500)]
        assert await asyncio.gather(*(database.change(None, _named, number) for number in numbers)) == numbers
        assert len(turns) <= 2
        turns.clear()
        assert await asyncio.gather(*(database.query(_systems) for _ in range(500))) == [numbers] * 500
        assert len(turns) <= 2


async def test_what_fails_among_others_undoes_itself_alone(database_url: str) -> None:
    async with await Database.open(database_url) as database:
        done = await asyncio.gather(
            database.change("a", _named, "first"),
            database.change("b", _named_twice, "second"),
            database.change("c", _named, "third"),
            return_exceptions=True,
        )
        assert (done[0], str(done[1]), done[2]) == ("first", "second", "third")
        assert sorted(await database.query(_systems)) == ["first", "third"]
        seen = await asyncio.gather(
            database.query(_systems), database.query(_named_twice, "fourth"), return_exceptions=True
        )
        assert sorted(seen[0]) == ["first", "third"]
        assert isinstance(seen[1], Exception)


async def test_what_was_cancelled_before_it_began_is_left_out(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path)) as database:
        async with database.write() as connection:
            await connection.execute(text("SELECT 1"))
            waiting = [asyncio.create_task(database.change(None, _named, str(number))) for number in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
        await asyncio.wait(waiting)
        assert await database.query(_systems) == ["0", "2"]


async def test_whoever_waits_for_a_locked_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sqlite.BUSY_TIMEOUT_MS", 50)
    tried = []

    def begin(engine: Engine) -> Connection:
        tried.append(engine)
        return begun(engine)

    async with await Database.open(url(tmp_path)) as database:
        monkeypatch.setattr("storage.together.begun", begin)
        with locked_by_another(tmp_path):
            told = await asyncio.gather(
                *(database.change(None, _named, str(number)) for number in range(3)), return_exceptions=True
            )
            assert [type(one) for one in told] == [StorageError] * 3
            assert all("locked" in str(one) for one in told)
            assert len(tried) == 1, "they waited once, together"
        async with database.write() as connection:  # one of ours holds it for too long
            await connection.execute(text("SELECT 1"))
            with pytest.raises(StorageError, match="locked"):
                await database.change(None, _named, "waits")
        assert await database.change(None, _named, "later") == "later"
        assert await database.query(_systems) == ["later"]


async def test_what_is_cancelled_before_it_is_done_is_undone(tmp_path: Path) -> None:
    async with await Database.open(url(tmp_path)) as database:
        kept = Conversations(database)
        conversation = await kept.create("")
        with locked_by_another(tmp_path):
            turns = [asyncio.create_task(kept.add_turn(conversation.id, str(number))) for number in range(3)]
            await asyncio.sleep(0.1)  # a thread waits for the lock
            turns[1].cancel()
            await asyncio.wait(turns[1:2])
        await asyncio.wait(turns)
        said = [message.text for message in await kept.messages(conversation.id) if message.role == "user"]
        assert said == ["0", "2"]
        with locked_by_another(tmp_path):
            alone = asyncio.create_task(kept.add_turn(conversation.id, "alone"))
            await asyncio.sleep(0.1)
            alone.cancel()
            await asyncio.wait([alone])
        assert "alone" not in [message.text for message in await kept.messages(conversation.id)]


async def test_a_lock_that_comes_after_one_has_failed_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.BUSY_TIMEOUT_MS", 50)
    tried = []
    async with await Database.open(url(tmp_path)) as database:
        with closing(
            sqlite3.connect(tmp_path / "chatbot.db", isolation_level=None, check_same_thread=False)
        ) as other:

            def begin(engine: Engine) -> Connection:
                if len(tried) == 1:  # another program is quicker than the second try
                    other.execute("BEGIN IMMEDIATE")
                tried.append(engine)
                return begun(engine)

            monkeypatch.setattr("storage.together.begun", begin)
            told = await asyncio.gather(
                *(database.change(None, _named_twice if number == 3 else _named, str(number)) for number in range(9)),
                return_exceptions=True,
            )
            other.execute("ROLLBACK")
        assert [type(one) for one in told] == [StorageError] * 9
        assert len(tried) == 2
        assert await database.query(_systems) == []


async def test_whoever_comes_late_has_a_patience_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.sqlite.BUSY_TIMEOUT_MS", 300)
    async with await Database.open(url(tmp_path)) as database:
        async with database.write() as connection:
            await connection.execute(text("SELECT 1"))
            early = asyncio.create_task(database.change(None, _named, "early"))
            await asyncio.sleep(0.25)
            late = asyncio.create_task(database.change(None, _named, "late"))
            await asyncio.wait([early])
        with pytest.raises(StorageError, match="locked"):
            await early
        assert await late == "late"


async def test_what_is_read_long_holds_up_no_other(tmp_path: Path) -> None:
    ended = threading.Event()

    def long(connection: Connection) -> bool:
        return ended.wait(20)

    async with await Database.open(url(tmp_path)) as database:
        reads = asyncio.create_task(database.query(long))
        await asyncio.sleep(0.05)
        assert await database.query(_systems) == []
        assert not reads.done()
        ended.set()
        assert await reads


TORN_DOWN = """
import asyncio, sys, time
from sqlalchemy import text
from storage.database import Database

def write(connection):
    connection.execute(text("UPDATE conversations SET system = ''"))

async def main():
    database = await Database.open(sys.argv[1])

    async def slow():
        await database.change(None, lambda connection: time.sleep(0.3))

    async def last_words():
        try:
            await asyncio.sleep(100)
        finally:
            await database.change(None, write)
            print("kept")

    keep.extend(asyncio.create_task(one()) for one in (last_words, slow))
    await asyncio.sleep(0.05)

keep = []
asyncio.run(main())
"""


def test_a_loop_that_ends_in_the_middle_lets_last_words_be_written(tmp_path: Path) -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", TORN_DOWN, url(tmp_path)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout == "kept\n", done.stderr
