"""Trees of messages in a real database file."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from storage.conversations import HEARTBEAT_LOST, Conversations, this_process
from storage.database import Database
from storage.errors import NotFoundError
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
    assert [c.id for c in await conversations.list(limit=1, offset=1)] == [second.id]


async def test_deleting_takes_messages_and_draft_along(conversations: Conversations) -> None:
    conversation = (await conversations.create("")).id
    await conversations.add_turn(conversation, "secret")
    await conversations.save_draft(conversation, "more")
    await conversations.delete(conversation)
    assert await conversations.messages(conversation) == []
    assert await conversations.draft(conversation) == ""
    with pytest.raises(NotFoundError):
        await conversations.get(conversation)


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
        (f"{machine}|{pid}|1.0", now, "interrupted"),  # the number was given to another process since
        (f"another machine|{ended.pid}|{started}", now, "streaming"),
        (f"another machine|{ended.pid}|{started}", long_ago, "interrupted"),
    ]
    for owner, heartbeat, _ in cases:
        reply = (await conversations.add_turn(conversation, "hello")).reply
        await owned_by(database, reply.id, owner, heartbeat)
    assert await conversations.mark_interrupted() == 3
    said = await conversations.messages(conversation)
    assert [m.status for m in said if m.role == "assistant"] == [status for _, _, status in cases]


async def test_two_connections_write_without_losing_a_word(home: Path) -> None:
    url = f"sqlite+aiosqlite:///{home / 'chatbot.db'}"
    async with await Database.open(url) as first, await Database.open(url) as second:
        one, two = Conversations(first), Conversations(second)
        conversation = (await one.create("")).id
        for number in range(40):
            await (one if number % 2 else two).add_turn(conversation, str(number))
        path = await two.path((await one.get(conversation)).leaf_id)
        assert [m.text for m in path if m.role == "user"] == [str(number) for number in range(40)]
