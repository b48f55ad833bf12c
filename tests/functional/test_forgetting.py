"""What is deleted is gone: from the tables, from the search, from the disk, from the bytes of the files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from chatbot.chat import STILL_READ, ChatService
from chatbot.events import ConversationChanged
from chatbot.transfer.keep import keep
from chatbot.transfer.read import parse
from chatbot.transfer.write import export
from storage import erasure, forgetting
from storage.database import Database
from storage.erasure import is_unfinished
from storage.errors import NotFoundError
from storage.forgetting import Forgetting
from storage.records import Conversation
from storage.schema import erasures, metadata, summaries
from tests.postgres import Server
from tests.scripted import listen, scripted_service

PHRASE = "quixotic vexed jazz 龜鱷鷹 wyvern"
FILLER = "the tide comes in and goes out again over the grey stones of the old harbour wall"


Left = Callable[[], list[str]]
pytestmark = pytest.mark.usefixtures("either_database")


@pytest.fixture
async def service() -> AsyncIterator[ChatService]:
    async with scripted_service(lambda messages: f"about {messages[-1].content}", system="") as opened:
        yield opened


@pytest.fixture
def left(home: Path, either_database: str, request: pytest.FixtureRequest) -> Left:
    """What there still is of the phrase, in any file of the home, with its trigrams as the search index of SQLite
    holds them, or in any row of any table of a server, whose files are its own."""
    common = f"{FILLER} about".lower()
    trigrams = {PHRASE[i : i + 3].lower() for i in range(len(PHRASE) - 2)}
    wanted = [
        PHRASE.lower(),
        *PHRASE.lower().split(),
        *(t for t in trigrams if t not in common and len(t.encode()) > 3),
    ]
    url = make_url(either_database)

    def rows() -> bytes:
        server: Server = request.getfixturevalue("postgres")
        every = (f"SELECT t::text FROM {table} AS t" for table in metadata.tables)
        return server.sql(*every, database=url.database or "").encode()

    def look() -> list[str]:
        content = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        if url.get_backend_name() == "sqlite":
            assert (home / "chatbot.db").is_file()
        else:
            content.append(rows())
        return [word for word in wanted if word.encode() in b"\0".join(content).lower()]

    return look


async def fill(service: ChatService) -> None:
    for number in range(40):
        await service.conversations.add_turn(Conversation.new(""), f"{FILLER} {number} " * 9)


async def test_a_conversation_is_gone_to_the_last_byte(service: ChatService, left: Left) -> None:
    await fill(service)
    first, _ = await listen(service.send(None, PHRASE))
    here = first.conversation
    await listen(service.send(here, f"{PHRASE} again"))
    await listen(service.regenerate(here))
    await listen(service.edit(here, first.message, f"{PHRASE}!"))
    await service.conversations.rename(here, PHRASE)
    await service.conversations.save_draft(here, f"{PHRASE} unsent")
    await service.rate(first.reply, -1, PHRASE)
    await service.store.attachments.add(first.message, "a.txt", "text/plain", PHRASE.encode(), {"prompt": PHRASE})
    await summarise(service, here, first.reply)
    await fill(service)
    assert left()
    assert await service.delete(here) == ""
    assert left() == []
    assert await service.conversations.messages(here) == []
    assert await service.conversations.draft(here) == ""
    with pytest.raises(NotFoundError):
        await service.delete(here)


async def summarise(service: ChatService, conversation: str, message: str) -> None:
    row = {"message_id": message, "conversation_id": conversation, "text": PHRASE, "model": "m@1"}
    async with service.store.database.write() as connection:
        await connection.execute(summaries.insert().values(**row, created=datetime.now(UTC)))


async def test_one_message_is_gone_and_what_followed_it_stays(service: ChatService, left: Left) -> None:
    await fill(service)
    first, _ = await listen(service.send(None, "before"))
    here = first.conversation
    middle = (await service.conversations.add_turn(here, PHRASE)).said
    [reply] = [m for m in await service.conversations.messages(here) if m.parent_id == middle.id]
    await service.conversations.end_reply(reply.id, "noted", "complete")
    await listen(service.send(here, "after"))
    await summarise(service, here, reply.id)
    await service.delete_message(middle.id)
    assert left() == []
    leaf = (await service.conversations.get(here)).leaf_id
    path = await service.conversations.path(leaf)
    assert [m.text for m in path] == ["before", "about before", "noted", "after", "about after"]
    assert [m.summary for m in path] == [None] * 5


async def test_the_title_made_from_a_forgotten_message_goes_with_it(service: ChatService, left: Left) -> None:
    first = (await service.conversations.add_turn(Conversation.new(""), PHRASE)).said
    here = first.conversation_id
    await service.delete_message(first.id)
    assert (await service.conversations.get(here)).title == ""
    assert left() == []


async def test_when_the_reply_shown_is_forgotten_the_one_beside_it_is_shown(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "hello"))
    second, _ = await listen(service.regenerate(first.conversation))
    await service.delete_message(second.reply)
    assert (await service.conversations.get(first.conversation)).leaf_id == first.reply
    await service.delete_message(first.reply)
    assert (await service.conversations.get(first.conversation)).leaf_id == first.message
    await service.delete_message(first.message)
    assert (await service.conversations.get(first.conversation)).leaf_id is None
    await listen(service.send(first.conversation, "and again"))


async def test_all_of_one_person_is_gone_and_nothing_of_the_others(service: ChatService, left: Left) -> None:
    await fill(service)
    ada = await service.store.people.get_or_add("telegram", "42", "Ada Quixotic")
    mine, _ = await listen(service.send(None, "mine"))
    for _ in range(3):
        await listen(service.send(None, PHRASE, person=ada.id))
    await service.rate(mine.reply, -1, PHRASE, person=ada.id)
    before = len(await service.conversations.list())
    await service.forget(ada.id)
    assert left() == []
    assert len(await service.conversations.list()) == before - 3
    assert await service.store.ratings.of_conversation(mine.conversation) == []
    with pytest.raises(NotFoundError):
        await service.store.people.find("telegram", "42")
    await service.forget("local")
    assert await service.conversations.list() == []
    await listen(service.send(None, "a new beginning"))


async def test_what_keeps_more_forgets_along_or_nothing_is_forgotten(service: ChatService) -> None:
    forgets: Forgetting = service.store.forgetting
    told: list[str] = []

    async def along(connection: AsyncConnection, message_ids: Sequence[str]) -> None:
        told.extend(message_ids)
        if len(told) > 2:
            raise NotFoundError("not now")

    forgets.add(along)
    first, _ = await listen(service.send(None, "one"))
    await service.delete(first.conversation)
    assert set(told) == {first.message, first.reply}
    second, _ = await listen(service.send(None, "two"))
    with pytest.raises(NotFoundError, match="not now"):
        await service.delete(second.conversation)
    assert len(await service.conversations.messages(second.conversation)) == 2


async def test_while_another_process_reads_it_is_said_and_nothing_hangs(
    service: ChatService, left: Left, home: Path, either_database: str
) -> None:
    first, _ = await listen(service.send(None, PHRASE))
    if either_database.startswith("sqlite"):
        reader = sqlite3.connect(home / "chatbot.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        assert await service.delete(first.conversation) == STILL_READ
        reader.close()
    else:
        async with service.store.database.read() as reading:
            await reading.execute(text("SELECT count(*) FROM messages"))
            assert await service.delete(first.conversation) == ""
    assert await service.delete((await listen(service.send(None, "x")))[0].conversation) == ""
    assert left() == []


async def test_a_reply_under_way_ends_before_its_conversation_is_forgotten(left: Left) -> None:
    async with scripted_service(lambda messages: f"{PHRASE} " * 200, delay=0.001) as service:
        running = service.send(None, "talk")
        started = await anext(running)
        await anext(running)
        await asyncio.sleep(0.3)
        heard = [event async for event in service.send(started.conversation, "/delete")]  # type: ignore[union-attr]  # it has begun
        assert heard == [ConversationChanged(None)]
        await running.aclose()
        assert left() == []


async def test_attachments_are_kept_whole_and_copied(service: ChatService, home: Path) -> None:
    first, _ = await listen(service.send(None, "look"))
    files = service.store.attachments
    kept = await files.add(first.message, "p.png", "image/png", b"\x89PNG", {"width": 1})
    assert await files.read(kept.id) == b"\x89PNG"
    assert await files.of_messages([first.message]) == [kept]
    with pytest.raises(NotFoundError):
        await files.add("nonesuch", "x", "text/plain", b"")
    assert [path.name for path in (home / "attachments").rglob("*") if path.is_file()] == [kept.id]
    copied = await service.duplicate(first.conversation)
    [other] = await files.of_conversation(copied)
    await files.delete(kept.id)
    assert await files.read(other.id) == b"\x89PNG"
    assert not files.path(kept.id).exists()


async def test_a_conversation_is_copied_though_the_file_of_an_attachment_is_lost(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "look"))
    files = service.store.attachments
    lost = await files.add(first.message, "lost.png", "image/png", b"lost")
    await files.add(first.message, "kept.png", "image/png", b"kept")
    files.path(lost.id).unlink()
    for copied in (await service.duplicate(first.conversation), await service.fork(first.conversation, first.reply)):
        copies = await files.of_conversation(copied)
        assert {file.name for file in copies} == {"lost.png", "kept.png"}
        [whole] = [file for file in copies if file.name == "kept.png"]
        assert await files.read(whole.id) == b"kept"


async def test_databases_that_share_a_home_leave_each_others_attachments_alone(
    service: ChatService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even those of the same id, as what was carried from one to the other has."""
    first, _ = await listen(service.send(None, "look"))
    kept = await service.store.attachments.add(first.message, "p.png", "image/png", b"mine")
    os.utime(service.store.attachments.path(kept.id), (0, 0))
    [shape] = parse("".join([piece async for piece in export_all(service)]).encode())
    monkeypatch.setenv("CHATBOT_DATABASE_URL", f"sqlite:///{home / 'other.db'}")
    async with scripted_service() as other:
        assert await keep(other.store, shape) == 2
        assert await other.store.attachments.read(kept.id) == b"mine"
        await other.delete(first.conversation)
        with pytest.raises(NotFoundError):
            await other.store.attachments.read(kept.id)
        await other.forget("local")
    assert await service.store.attachments.read(kept.id) == b"mine"


async def export_all(service: ChatService) -> AsyncIterator[str]:
    async for piece in export(service.store, await service.conversations.list(), "json"):
        yield piece


async def test_an_attachment_from_before_databases_had_folders_of_their_own_is_found_and_forgotten(
    service: ChatService, home: Path
) -> None:
    first, _ = await listen(service.send(None, "look"))
    files = service.store.attachments
    kept = await files.add(first.message, "p.png", "image/png", b"old")
    earlier = files.path(kept.id).rename(home / "attachments" / kept.id)
    assert files.path(kept.id) == earlier
    assert await files.read(kept.id) == b"old"
    await service.delete(first.conversation)
    assert not earlier.exists()


async def test_a_file_that_a_crash_left_without_a_row_is_deleted_after_an_hour(
    service: ChatService, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await listen(service.send(None, "look"))
    files, database = service.store.attachments, service.store.database
    write = files.write
    written: list[Path] = []

    async def killed(attachment_id: str, data: bytes) -> None:
        await write(attachment_id, data)
        written.append(files.path(attachment_id))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            await files.add(first.message, "p.png", "image/png", b"left behind")
    [path] = written
    await service.store.forgetting.resume()
    assert path.exists()  # it may be that it is just being written
    async with database.write() as connection:
        await connection.execute(erasures.update().values(not_before=datetime.now(UTC)))
    await service.store.forgetting.resume()
    assert not path.exists()


async def test_what_a_killed_process_had_not_erased_is_erased_when_the_database_is_opened(
    service: ChatService, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(service)
    first, _ = await listen(service.send(None, PHRASE))
    await service.store.attachments.add(first.message, "a.txt", "text/plain", PHRASE.encode())

    async def killed(*rest: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "erase", killed)
        with pytest.raises(KeyboardInterrupt):
            await service.store.forgetting.conversation(first.conversation)
    assert left()
    async with scripted_service():
        assert left() == []
    assert not await is_unfinished(service.store.database)


async def test_what_was_typed_for_a_conversation_that_has_not_begun_is_forgotten_with_the_person_here(
    service: ChatService, left: Left
) -> None:
    ada = await service.store.people.get_or_add("telegram", "42", "Ada")
    hers, _ = await listen(service.send(None, "hers", person=ada.id))
    await service.conversations.save_draft(hers.conversation, "half a thought")
    await service.conversations.save_draft("new", PHRASE)
    await service.forget("local")
    assert left() == []
    assert await service.conversations.draft("new") == ""
    assert await service.conversations.draft(hers.conversation) == "half a thought"


async def test_others_write_while_the_search_index_is_cleared(
    service: ChatService, left: Left, either_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(service)
    first, _ = await listen(service.send(None, PHRASE))
    await fill(service)
    clear = erasure._clear_index
    wrote: list[int] = []

    async def clear_beside_a_writer(database: Database) -> None:
        async def write() -> None:
            while not cleared.is_set():
                await service.conversations.save_draft("new", "typed meanwhile")
                wrote.append(len(steps))
                await asyncio.sleep(0)

        cleared = asyncio.Event()
        writing = asyncio.create_task(write())
        await clear(database)
        cleared.set()
        await writing

    steps: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "'merge'" in statement:
            steps.append(statement)

    monkeypatch.setattr(erasure, "_MERGED_AT_ONCE", 2)
    monkeypatch.setattr(erasure, "_clear_index", clear_beside_a_writer)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        await service.delete(first.conversation)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert left() == []
    if either_database.startswith("sqlite"):
        assert len({number for number in wrote if 0 < number < len(steps)}) > 1
