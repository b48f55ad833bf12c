"""What waits to be answered, on every kind of database."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from storage import inbox as module
from storage.access import Access, Used
from storage.chats import Chats
from storage.conversations import Conversations
from storage.database import Database
from storage.inbox import Arrival, Inbox, forget_sender
from storage.people import People
from storage.records import Conversation
from storage.schema import inbox as table


@pytest.fixture
def inbox(database: Database) -> Inbox:
    return Inbox(database, "telegram:1", most=3)


@pytest.fixture
def as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, that has died since."""
    monkeypatch.setattr(module, "this_process", lambda: "elsewhere|1|1.0")


def arrival(number: int, lane: str = "a", **more: bool) -> Arrival:
    return Arrival(number, lane, "ada", f"payload {number}", **more)


async def test_what_comes_twice_is_kept_once_and_in_order(inbox: Inbox) -> None:
    first = await inbox.store([arrival(2), arrival(1), arrival(2)])
    assert [entry.update_id for entry in first] == [1, 2]
    assert await inbox.store([arrival(1), arrival(2)]) == []
    await inbox.done(first[0].seq)
    assert await inbox.store([arrival(1)]) == []
    assert (await inbox.waiting())[0] == 1


async def test_a_full_lane_turns_away_tells_once_and_is_passed_by_what_is_urgent(inbox: Inbox) -> None:
    await inbox.store([arrival(number) for number in range(3)])
    [told] = await inbox.store([arrival(number) for number in range(3, 9)])
    assert (told.turned_away, told.lane, told.update_id) == (True, "a!", 3)
    [urgent] = await inbox.store([arrival(9, urgent=True)])
    assert (urgent.turned_away, urgent.lane) == (False, "a!")
    [other] = await inbox.store([arrival(10, "b")])
    assert not other.turned_away
    assert await inbox.store([arrival(number) for number in range(3, 9)]) == [], "their numbers are known"
    inbox.emptied("a")
    [again] = await inbox.store([arrival(11)])
    assert again.turned_away


async def test_topics_of_a_chat_share_what_may_wait(inbox: Inbox) -> None:
    kept = await inbox.store([arrival(number, f"a/{number}") for number in range(1, 5)])
    assert [entry.turned_away for entry in kept] == [False, False, False, True]
    [other] = await inbox.store([arrival(5, "b/1")])
    assert not other.turned_away


async def test_what_is_urgent_has_a_bound_too_and_is_counted_apart(inbox: Inbox) -> None:
    assert len(await inbox.store([arrival(number) for number in range(3)])) == 3
    kept = await inbox.store([arrival(number, urgent=True) for number in range(3, 1000)])
    assert [entry.update_id for entry in kept] == [3, 4, 5]
    [told] = await inbox.store([arrival(1000)])
    assert told.turned_away, "and it is told"


async def test_a_lane_with_room_again_is_told_again_whoever_answers_in_it(inbox: Inbox, database: Database) -> None:
    entries = await inbox.store([arrival(number) for number in range(6)])
    assert [entry.update_id for entry in entries] == [0, 1, 2, 3]
    for entry in entries:
        await Inbox(database, "telegram:1", 3).done(entry.seq)
    again = await inbox.store([arrival(number) for number in range(6, 12)])
    assert [entry.turned_away for entry in again] == [False, False, False, True]


async def test_of_what_is_done_only_the_newest_numbers_stay(
    inbox: Inbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_DONE", 10)
    monkeypatch.setattr(module, "PRUNE_EVERY", 5)
    for number in range(40):
        [entry] = await inbox.store([arrival(number)])
        await inbox.done(entry.seq)
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() <= 15
        left = (await connection.execute(select(table.c.payload, table.c.lane, table.c.sender).distinct())).all()
    assert [tuple(row) for row in left] == [("", "", "")]


@pytest.mark.usefixtures("as_another")
async def test_a_lane_is_one_processs_until_that_dies(
    inbox: Inbox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    [theirs] = await inbox.store([arrival(1)])
    monkeypatch.undo()
    assert await inbox.store([arrival(2)]) == [], "it follows in their lane"
    assert not await inbox.note(theirs.seq, parts=1)
    assert await inbox.look() == ([], []), "they lived a moment ago"
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    async with database.write() as connection:
        await connection.execute(update(table).values(heartbeat=long_ago))
    taken, _ = await inbox.look()
    assert [(entry.update_id, entry.attempts) for entry in taken] == [(1, 1), (2, 1)]
    assert await inbox.look() == ([], [])
    assert await inbox.note(theirs.seq, parts=1)


async def test_stopping_marks_what_is_being_answered_and_nothing_after_it(inbox: Inbox) -> None:
    assert not await inbox.stop("a")
    await inbox.store([arrival(1), arrival(2), arrival(3, "b")])
    assert await inbox.stop("a")
    assert await inbox.look() == ([], ["a"])


async def test_someone_forgotten_waits_for_nothing_and_is_not_taken_again(inbox: Inbox, database: Database) -> None:
    await inbox.store([arrival(1), Arrival(2, "b", "bob", "of bob")])
    async with database.write() as connection:
        await forget_sender(connection, "telegram", "ada")
    assert (await inbox.waiting())[0] == 1
    assert await inbox.store([arrival(1)]) == []


async def test_stored_by_several_at_once_each_comes_once(inbox: Inbox) -> None:
    kept = await asyncio.gather(*(inbox.store([arrival(n, f"lane{n}") for n in range(20)]) for _ in range(4)))
    assert sorted(entry.update_id for entries in kept for entry in entries) == list(range(20))


async def test_rules_and_what_was_used(database: Database) -> None:
    access = Access(database, "telegram")
    assert (await access.rule("5")).allowed is None
    await access.decide("5", allowed=True)
    await access.decide("5", messages=3)
    assert [(rule.external_id, rule.allowed, rule.messages) for rule in await access.rules()] == [("5", True, 3)]
    assert await Access(database, "elsewhere").rules() == []
    day = date(2026, 11, 25)
    for _ in range(2):
        await access.use(["x", "y"], day, Used(1, 10, 0))
    assert await access.used("x", day) == Used(2, 20, 0)
    await access.use(["x"], day + timedelta(days=2), Used(1))
    assert await access.used("y", day) == Used(), "it is forgotten after a day"


async def test_a_chat_shows_a_conversation_until_that_is_gone(database: Database) -> None:
    chats, conversations = Chats(database), Conversations(database)
    person = await People(database).get_or_add("telegram", "5")
    kept = await conversations.create("", person=person.id)
    assert await chats.conversation("c") is None
    await chats.show("c", kept.id)
    assert await chats.conversation("c") == kept.id
    await chats.show("c", None)
    assert await chats.conversation("c") is None
    turn = await conversations.add_turn(Conversation.new(""), "hello", message_id="0123456789abcdef")
    assert turn.said.id == "0123456789abcdef"
