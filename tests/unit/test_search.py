"""Finding what was said: any language, any length, any query."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from storage.conversations import Conversation, Conversations
from storage.database import Database
from storage.schema import messages
from storage.search import MOST_PLACES, RECENT, Order, Query, Search, snippet_of, words_of


@pytest.fixture
def search(database: Database) -> Search:
    return Search(database)


async def say(conversations: Conversations, *texts: str, person: str = "local") -> str:
    conversation = await conversations.create("", person=person)
    for text in texts:
        turn = await conversations.add_turn(conversation.id, text)
        await conversations.end_reply(turn.reply.id, "noted", "complete")
    return conversation.id


async def found(search: Search, text: str, **where: object) -> list[str]:
    hits = await search.find(Query(text, **where))  # type: ignore[arg-type]
    for hit in hits:
        assert hit.marks, hit
        assert all(0 <= begin < end <= len(hit.snippet) for begin, end in hit.marks)
    return [hit.snippet for hit in hits]


SAID = (
    "The quick brown fox",
    "我们明天去北京大学看书。",
    "明日は東京へ行きます",
    "Grüße aus KÖLN",
    "100% of a_b\\c 'quoted' \"double\"",
    "a\nb",
    "😀 smile",
    "x",
)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("QUICK", 0),
        ("fox the", 0),
        ("brown fo", 0),
        ("北京大学", 1),
        ("明天", 1),
        ("书", 1),
        ("。", 1),
        ("東京へ", 2),
        ("東京", 2),
        ("ます", 2),
        ("köln", 3),
        ("GRÜSSE", None),
        ("ü", 3),
        ("ÖL", 3),
        ("100%", 4),
        ("%", 4),
        ("_", 4),
        ("_b", 4),
        ("\\c", 4),
        ('"doub', 4),
        ("'", 4),
        ('"a b"', 5),
        ('"brown fox"', 0),
        ('"fox brown"', None),
        ("😀", 6),
        ("il", 6),
        ("x", (7, 0)),
        ("zzz", None),
        ("zq", None),
        ("", None),
        ('""', None),
    ],
)
async def test_words_of_any_language_and_length_are_found(
    conversations: Conversations, search: Search, query: str, place: int | tuple[int, ...] | None
) -> None:
    await say(conversations, *SAID)
    wanted = () if place is None else (place,) if isinstance(place, int) else place
    assert await found(search, query) == [SAID[at].replace("\n", " ") for at in wanted]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text(max_size=40)
    | st.sampled_from(["AND", "NEAR(a b, 2)", "text : x", "a*", "^a", "-a", '"', "((", "a OR", "{x}"])
)
async def test_no_query_is_a_mistake(search: Search, query: str) -> None:
    await search.find(Query(query))
    await search.find(Query(query, order="best", role="user"))


async def test_a_query_of_ten_kilobytes_is_answered(conversations: Conversations, search: Search) -> None:
    page = " ".join(f"word{number}" for number in range(1_500))
    await say(conversations, page)
    assert len(await search.find(Query(page))) == 1
    assert await search.find(Query('"' * 10_000)) == []
    assert await search.find(Query("龍" * 10_000)) == []


async def test_filters_narrow_what_is_found(conversations: Conversations, search: Search, database: Database) -> None:
    one = await say(conversations, "apples", "pears")
    two = await say(conversations, "apples again")
    assert await found(search, "apples") == ["apples again", "apples"]
    assert await found(search, "apples", conversation=one) == ["apples"]
    assert await found(search, "noted", role="user") == []
    assert len(await found(search, "noted", role="assistant")) == 3
    assert await found(search, "apples", person="nobody") == []
    old = datetime.now(UTC) - timedelta(days=30)
    async with database.write() as connection:
        await connection.execute(update(messages).where(messages.c.conversation_id == two).values(created=old))
    assert await found(search, "apples", since=old + timedelta(days=1)) == ["apples"]
    assert await found(search, "apples", until=old + timedelta(days=1)) == ["apples again"]
    for short in ("ap", "p"):
        assert await found(search, short, until=old + timedelta(days=1)) == ["apples again"]


async def test_the_best_come_first_where_that_is_asked(conversations: Conversations, search: Search) -> None:
    await say(
        conversations, "tea tea tea", "I once had tea, and then for a long time nothing else of the kind.", "tea"
    )

    async def first(order: Order) -> str:
        return (await search.find(Query("tea", order=order)))[0].snippet

    assert await first("newest") == "tea"
    assert await first("best") == "tea tea tea"


async def test_the_pages_of_what_is_found_follow_one_another(conversations: Conversations, search: Search) -> None:
    await say(conversations, *(f"entry {number}" for number in range(25)))
    pages = [await search.find(Query("entry"), 10, offset) for offset in (0, 10, 20, 30)]
    assert [hit.snippet for page in pages for hit in page] == [f"entry {number}" for number in range(24, -1, -1)]


async def test_a_short_word_is_found_however_long_ago_and_however_common_it_was(
    conversations: Conversations, search: Search, database: Database
) -> None:
    old = await say(conversations, "the 龜 of old", "é" * (MOST_PLACES + 1))
    later = Conversation.new("")
    turn = await conversations.add_turn(later, "y")
    rows = [
        {
            "id": f"{n:x}",
            "conversation_id": later.id,
            "parent_id": turn.reply.id,
            "role": "user",
            "text": "y",
            "status": "complete",
            "created": datetime.now(UTC),
        }
        for n in range(RECENT + 10)
    ]
    async with database.write() as connection:
        await connection.execute(messages.insert(), rows)
    assert [hit.conversation_id for hit in await search.find(Query("龜"))] == [old]
    assert [hit.conversation_id for hit in await search.find(Query("É"))] == [old]
    assert len(await search.find(Query("y"))) == 20


async def test_a_reply_is_found_when_it_has_ended_and_not_before(
    conversations: Conversations, search: Search
) -> None:
    reply = (await conversations.add_turn(Conversation.new(""), "hi")).reply
    for part in ("zebra", "zebra cross", "zebra crossing"):
        await conversations.save_reply(reply.id, part)
    assert await found(search, "zebra") == []
    assert await found(search, "ze") == []
    await conversations.end_reply(reply.id, "zebra crossing", "complete")
    assert await found(search, "zebra") == await found(search, "ze") == ["zebra crossing"]


def test_a_snippet_shows_what_matches_and_says_where() -> None:
    import re

    text = "word " * 100 + "here is the needle in it " + "word " * 100
    snippet, marks = snippet_of(text, [re.compile("needle"), re.compile("dle in")])
    assert snippet.startswith("…word")
    assert snippet.endswith("…")
    assert len(snippet) < 170
    assert [snippet[begin:end] for begin, end in marks] == ["needle in"]


def test_what_stands_in_quotes_is_one_word() -> None:
    assert words_of('Tea "With  Milk" tea \0 "') == ["tea", "with milk", '"']
