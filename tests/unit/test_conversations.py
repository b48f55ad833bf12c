"""Trees of messages in a real database file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from math import isnan
from typing import Any

import psutil
import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.engine import Engine

from storage.conversations import Conversations
from storage.database import Database
from storage.processes import HEARTBEAT_LOST, this_process
from storage.schema import conversations as table
from storage.schema import messages


async def test_a_conversation_comes_back_as_it_was_said(conversations: Conversations) -> None:
    created = await conversations.create("Be kind.")
    turn = await conversations.add_turn(created.id, "Hello\n  there, 世界 😀")
    said, reply = turn.said, turn.reply
    await conversations.end_reply(reply.id, "Hi!", "complete", model="m@1", finish_reason="stop", usage={"n": 1})
    conversation = await conversations.get(created.id)
    path = await conversations.path(conversation.leaf_id)
    assert [(m.role, m.text, m.status, m.parent_id) for m in path] == [
        ("user", "Hello\n  there, 世界 😀", "complete", None),
        ("assistant", "Hi!", "complete", said.id),
    ]
    assert path[1].usage == {"n": 1}
    assert conversation.title == "Hello there, 世界 😀"
    assert conversation.created.tzinfo is UTC


async def test_a_path_reads_no_more_than_its_limit(conversations: Conversations) -> None:
    conversation = (await conversations.create("")).id
    for number in range(30):
        reply = (await conversations.add_turn(conversation, str(number))).reply
    path = await conversations.path(reply.id, limit=5)
    assert len(path) == 5
    assert path[-1].id == reply.id
    assert [message.text for message in path if message.role == "user"] == ["28", "29"]
    assert len(await conversations.path(reply.id)) == 60


async def test_conversations_are_listed_by_the_last_word_said(conversations: Conversations) -> None:
    first = await conversations.create("")
    second = await conversations.create("")
    await conversations.add_turn(first.id, "again")
    assert [c.id for c in await conversations.list()] == [first.id, second.id]
    [page] = await conversations.list(limit=1)
    assert [c.id for c in await conversations.list(limit=1, after=page)] == [second.id]
    assert await conversations.list(after=second) == []


async def test_a_draft_is_kept_until_it_is_emptied(conversations: Conversations) -> None:
    await conversations.save_draft("new", "half a thou")
    await conversations.save_draft("new", "half a thought")
    assert await conversations.draft("new") == "half a thought"
    await conversations.save_draft("new", "")
    assert await conversations.draft("new") == ""


async def owned_by(database: Database, reply: str, owner: str, heartbeat: datetime) -> None:
    async with database.write() as connection:
        await connection.execute(
            update(messages).where(messages.c.id == reply).values(owner=owner, heartbeat=heartbeat)
        )


async def test_only_replies_whose_writer_is_gone_become_interrupted(
    conversations: Conversations, database: Database
) -> None:
    conversation = (await conversations.create("")).id
    machine, pid, started = this_process().rsplit("|", 2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    now, long_ago = datetime.now(UTC), datetime.now(UTC) - 2 * HEARTBEAT_LOST
    cases = [
        (this_process(), now, "streaming"),
        (f"{machine}|{ended.pid}|{started}", now, "interrupted"),
        (f"{machine}|{pid}|{started}1", now, "interrupted"),  # the number was given to another process since
        (f"{machine}|{pid}|1.0", now, "interrupted"),  # the same, as earlier versions said it
        (f"{machine}|{os.getpid()}|{psutil.Process().create_time()}", now, "streaming"),
        (f"another machine|{ended.pid}|{started}", now, "streaming"),
        (f"another machine|{ended.pid}|{started}", long_ago, "interrupted"),
    ]
    for owner, heartbeat, _ in cases:
        reply = (await conversations.add_turn(conversation, "hello")).reply
        await owned_by(database, reply.id, owner, heartbeat)
    assert await conversations.mark_interrupted() == 4
    said = await conversations.messages(conversation)
    assert [m.status for m in said if m.role == "assistant"] == [status for _, _, status in cases]


async def test_a_living_process_is_known_whatever_happens_to_the_clock(
    conversations: Conversations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from storage.processes import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().decode().strip()
        reply = (await conversations.add_turn((await conversations.create("")).id, "hello")).reply
        await owned_by(database, reply.id, owner, datetime.now(UTC))
        began = psutil.Process.create_time
        if sys.platform == "linux":  # where the beginning of a process follows the clock
            monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) - 3_600)
        assert await conversations.mark_interrupted() == 0
        process.kill()
    assert await conversations.mark_interrupted() == 1


async def test_the_pinned_messages_are_found_by_their_index(conversations: Conversations, database: Database) -> None:
    turn = await conversations.add_turn((await conversations.create("")).id, "hello")
    await conversations.pin(turn.said.id, True)
    asked: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *rest: object) -> None:
        asked.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        pinned, _ = await conversations.pinned_and_path(turn.reply.id, 1)
        assert [message.id for message in pinned] == [turn.said.id]
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    [(oldest, values)] = [one for one in asked if "messages.pinned" in one[0] and "RECURSIVE" not in one[0]]
    async with database.read() as connection:
        if connection.dialect.name == "sqlite":
            plan = str((await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {oldest}", values)).all())
        else:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = str((await connection.exec_driver_sql(f"EXPLAIN {oldest}", values)).all())
    assert "messages_pinned" in plan


async def test_two_connections_write_without_losing_a_word(database_url: str) -> None:
    async with await Database.open(database_url) as first, await Database.open(database_url) as second:
        one, two = Conversations(first), Conversations(second)
        conversation = (await one.create("")).id
        for number in range(40):
            await (one if number % 2 else two).add_turn(conversation, str(number))
        path = await two.path((await one.get(conversation)).leaf_id)
        assert [m.text for m in path if m.role == "user"] == [str(number) for number in range(40)]


async def test_turns_added_at_the_same_moment_all_join_one_branch(database_url: str) -> None:
    async with await Database.open(database_url) as first, await Database.open(database_url) as second:
        one, two = Conversations(first), Conversations(second)
        conversation = (await one.create("")).id
        await asyncio.gather(*((one, two)[n % 2].add_turn(conversation, str(n)) for n in range(20)))
        path = await one.path((await two.get(conversation)).leaf_id)
        assert {message.text for message in path if message.role == "user"} == {str(n) for n in range(20)}


async def test_a_reader_sees_one_state_while_others_write(conversations: Conversations, database: Database) -> None:
    conversation = (await conversations.create("")).id
    count = select(func.count()).select_from(messages)
    async with database.read() as connection:
        before = (await connection.execute(count)).scalar()
        await conversations.add_turn(conversation, "hello")
        assert (await connection.execute(count)).scalar() == before == 0
    assert len(await conversations.messages(conversation)) == 2


async def test_what_a_block_wrote_is_undone_where_it_raises(conversations: Conversations, database: Database) -> None:
    conversation = (await conversations.create("", title="before")).id
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await connection.execute(update(table).values(title="after"))
            raise ZeroDivisionError
    assert (await conversations.get(conversation)).title == "before"


async def test_a_character_that_cannot_be_kept_takes_no_other_along(conversations: Conversations) -> None:
    conversation = (await conversations.create("S\0", title="T\0\ud800")).id
    turn = await conversations.add_turn(conversation, "a\0b\udfffc\x01😀")
    await conversations.end_reply(turn.reply.id, "\0", "failed", error="\ud83d", usage={"why": "\0\ud83d"})
    await conversations.save_draft("new", "d\0")
    said, reply = await conversations.messages(conversation)
    stored = await conversations.get(conversation)
    assert (stored.title, stored.system, said.text, reply.text) == ("T", "S", "abc\x01😀", "")
    assert (reply.error, reply.usage) == ("", {"why": "\0\ud83d"})
    assert await conversations.draft("new") == "d"


async def test_a_number_that_json_cannot_say_takes_no_other_along(conversations: Conversations) -> None:
    reply = (await conversations.add_turn((await conversations.create("")).id, "hi")).reply
    await conversations.end_reply(reply.id, "", "complete", usage={"speed": float("nan"), "tokens": 3})
    usage = (await conversations.path(reply.id))[-1].usage
    assert usage is not None
    assert usage["tokens"] == 3
    assert usage["speed"] is None or isnan(usage["speed"])


async def test_a_long_text_comes_back(conversations: Conversations) -> None:
    text = "Wörter 世界 " * 30_000
    turn = await conversations.add_turn((await conversations.create("")).id, text)
    assert (await conversations.path(turn.said.id))[0].text == text


async def test_moments_come_back_to_the_microsecond_whatever_zone_they_were_told_in(
    conversations: Conversations, database: Database
) -> None:
    conversation = (await conversations.create("")).id
    told = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=-7)))
    async with database.write(conversation) as connection:
        await connection.execute(update(table).values(updated=told))
    assert (await conversations.get(conversation)).updated == told
