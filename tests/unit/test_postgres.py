"""What is particular to PostgreSQL: a server that refuses, goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import make_url

from storage.conversations import Conversations
from storage.database import Database
from storage.errors import ConnectionLostError, StorageError
from storage.schema import messages
from tests.postgres import STRANGER, Server


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with await Database.open(postgres_url) as opened:
        yield opened


@pytest.fixture
def name(postgres_url: str) -> str:
    return make_url(postgres_url).database or ""


async def complaint(url: str) -> str:
    with pytest.raises(StorageError) as raised:
        await Database.open(url)
    return str(raised.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg", "postgres"])
async def test_a_url_of_either_spelling_opens_it(postgres_url: str, scheme: str) -> None:
    await (await Database.open(postgres_url.replace("postgresql", scheme))).close()


async def test_a_url_may_say_what_libpq_takes(postgres_url: str) -> None:
    async with (
        await Database.open(f"{postgres_url}&sslmode=disable&application_name=mine") as database,
        database.read() as connection,
    ):
        assert (await connection.execute(text("SHOW application_name"))).scalar() == "mine"


async def test_a_wrong_password_is_said_and_neither_is_shown(postgres: Server) -> None:
    url = postgres.url("postgres", user=f"{STRANGER}:wr0ng")
    said = await complaint(url)
    assert "refuses the user or the password" in said
    assert "wr0ng" not in said
    assert "wr0ng" not in await complaint(f"{postgres.url('postgres', user=STRANGER)}&password=wr0ng")
    assert "let the user own" in await complaint(url.replace("wr0ng", "right"))  # but may not


async def test_an_at_sign_in_a_password_is_not_taken_for_the_host() -> None:
    said = await complaint("postgresql://ada:se@cret@localhost/db")
    assert "percent-encoded" in said
    assert "cret" not in said


async def test_an_unknown_database_is_said(postgres: Server) -> None:
    assert "does not exist" in await complaint(postgres.url("nosuch"))


@pytest.mark.parametrize("host", ["localhost:1", "nosuch.invalid", "/nowhere"])
async def test_a_server_that_is_not_there_is_said(host: str) -> None:
    url = f"postgresql:///db?host={host}" if host.startswith("/") else f"postgresql://{host}/db"
    assert "cannot be reached" in await complaint(url)


async def test_a_database_that_cannot_hold_every_character_is_refused(postgres: Server) -> None:
    postgres.sql("CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0 LOCALE 'C'")
    said = await complaint(postgres.url("latin"))
    postgres.drop("latin")
    assert "LATIN1" in said


async def test_a_database_that_is_only_for_reading_is_said(postgres: Server, name: str) -> None:
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with await Database.open(postgres.url(name)) as database:
        conversations = Conversations(database)
        assert await conversations.list() == []
        with pytest.raises(StorageError, match="cannot be written"):
            await conversations.create("")


async def test_connections_that_were_cut_are_made_again(
    conversations: Conversations, postgres: Server, name: str
) -> None:
    conversation = (await conversations.create("")).id
    postgres.cut(name)
    await asyncio.sleep(0.05)
    assert (await conversations.get(conversation)).id == conversation
    postgres.cut(name)
    await asyncio.sleep(0.05)
    await conversations.add_turn(conversation, "still there?")


async def test_a_server_that_comes_back_is_waited_for(conversations: Conversations, postgres: Server) -> None:
    reply = (await conversations.add_turn((await conversations.create("")).id, "hello")).reply
    await asyncio.to_thread(postgres.stop)
    saving = asyncio.create_task(conversations.save_replies({reply.id: "what came"}))
    reading = asyncio.create_task(conversations.list())
    await asyncio.sleep(0.3)
    assert not saving.done()
    await asyncio.to_thread(postgres.start)
    await saving
    assert len(await reading) == 1
    assert (await conversations.path(reply.id))[-1].text == "what came"


async def test_a_connection_lost_in_the_middle_undoes_it_and_says_so(
    database: Database, conversations: Conversations, postgres: Server, name: str
) -> None:
    conversation = (await conversations.create("", title="before")).id
    with pytest.raises(ConnectionLostError, match="lost its connection"):
        async with database.write(conversation) as connection:
            await connection.execute(text("UPDATE conversations SET title = 'after'"))
            await asyncio.to_thread(postgres.cut, name)
    assert (await conversations.get(conversation)).title == "before"


async def test_a_piece_of_a_reply_is_saved_again_where_the_connection_is_lost_under_it(
    database: Database, conversations: Conversations, postgres: Server
) -> None:
    reply = (await conversations.add_turn((await conversations.create("")).id, "hello")).reply
    async with database.write("another") as connection:  # holds the row, so that the saving waits for it
        await connection.execute(update(messages).where(messages.c.id == reply.id).values(error="x"))
        saving = asyncio.create_task(conversations.save_replies({reply.id: "what came"}))
        waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while postgres.sql(waiting) != "t":
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
    await saving
    assert (await conversations.path(reply.id))[-1].text == "what came"


async def test_writers_of_different_conversations_do_not_wait_for_each_other(
    database: Database, conversations: Conversations
) -> None:
    async with database.write("one"):
        await asyncio.wait_for(conversations.save_draft("two", "typed"), 5)
        waiting = asyncio.create_task(conversations.save_draft("one", "typed"))
        alone = asyncio.create_task(conversations.mark_interrupted())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert alone.done()  # it found nothing to mark
    await waiting
