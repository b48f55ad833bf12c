"""Finding what was said: any language, any length, any query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, update
from sqlalchemy.engine import Engine

import storage.search
from storage.conversations import Conversations
from storage.database import Database, insert_rows
from storage.records import Conversation
from storage.schema import messages
from storage.search import LONGEST_WORD, MOST_PLACES, RECENT, Order, Query, Search, snippet_of, words_of


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
    hits = await search.find(Query(text, **where))  # type: ignore[arg-type]  # its fields, by name
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
        ("fox x", 0),
        ("smile x", None),
        ("书 北京大学", 1),
        ("北京大学 ます", None),
        ('"brown fox" o', 0),
        ('"brown fox" 书', None),
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
    | st.sampled_from(["\U0010ffff", "a\U0010ffff", "\U0010ffff\U0010ffff", "\ud7ff", "a\ud7ff", "\x01", '"a \x01"'])
)
async def test_no_query_is_a_mistake(search: Search, query: str) -> None:
    await search.find(Query(query))
    await search.find(Query(query, order="best", role="user"))


@pytest.mark.parametrize("text", ["\U0010ffff", "a\U0010ffff", "\U0010ffff\U0010ffff", "\ud7ff", "a\ud7ff"])
async def test_the_last_characters_of_all_are_found_and_nothing_in_their_place(
    conversations: Conversations, search: Search, text: str
) -> None:
    await say(conversations, f"here {text} is", "here b is", "ab\ue000")
    assert await found(search, text) == [f"here {text} is"]


@pytest.mark.parametrize(
    "text",
    [
        "İstanbul",
        "istanbul",
        "İ",
        "ı",
        "DİYARBAKIR",
        "ς",
        "Λόγος ΛΌΓΟΣ",
        "ſh",
        "ſhall",
        "Ꮳ",
        "ᏣᎳᎩ",
        "ꮳꮃꭹ",
        "ẞ",
        "Ω",
        "ǅ",
        "Ⴀ",
    ],
)
async def test_a_text_is_found_by_its_own_words(conversations: Conversations, search: Search, text: str) -> None:
    here = await say(conversations, f"so {text}, then")
    for query in (text, f'"so {text}"', f"{text} then"):
        assert await found(search, query) == [f"so {text}, then"]
        assert await found(search, query, conversation=here) == [f"so {text}, then"]


@pytest.mark.parametrize(
    ("query", "text"),
    [("istanbul", "İstanbul"), ("İSTANBUL", "Istanbul"), ("i", "İ"), ("ΟΔΟΣ", "οδος"), ("ος", "ΟΣ"), ("ꮳ", "Ꮳ")],
)
async def test_case_does_not_count_even_where_it_is_odd(
    conversations: Conversations, search: Search, query: str, text: str
) -> None:
    here = await say(conversations, text)
    assert await found(search, query) == [text]
    assert await found(search, query, conversation=here) == [text]


async def test_what_stands_between_the_words_of_a_phrase_does_not_count(
    conversations: Conversations, search: Search
) -> None:
    await say(conversations, "the\t\n and", "the\nand", "THE  and", "the and", "thee and", "and the", "é\n \nof")
    snippets = await found(search, '"the and"')
    assert snippets == ["the and", "THE  and", "the and", "the   and"]
    assert len(await found(search, '"é of"')) == len(await found(search, '"É of" of')) == 1


async def test_a_phrase_over_two_lines_is_found_however_many_have_its_words_apart(
    conversations: Conversations, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.search, "LOOKED_AT", 2)
    await say(conversations, "the\n\nand", "the\tand", *["and the"] * 25)
    assert await found(search, '"the and"') == ["the and", "the  and"]


@pytest.mark.parametrize("query", ["the c#", "and 書", "the 書", "e 龥", '"et ta"', '"the zq"', "書 zq", "th 書"])
async def test_a_rare_word_beside_a_common_one_is_looked_up_and_not_looked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(storage.search, "RECENT", 10)
    monkeypatch.setattr(storage.search, "LOOKED_AT", 10)
    looked_at: list[object] = []

    def connected(connection: Any, record: object) -> None:
        for name, count in (("like", 3), ("instr", 2), ("regexp", 2)):
            connection.create_function(name, count, lambda *told: looked_at.append(told), deterministic=True)

    event.listen(Engine, "connect", connected)
    try:
        async with await Database.open(home / "many.db") as database:
            conversations = Conversations(database)
            first = await conversations.add_turn(Conversation.new(""), "once 書, long ago")
            rows = [
                {"id": f"{n:x}", "conversation_id": first.said.conversation_id, "parent_id": first.said.id}
                | {"role": "user", "text": "the and et of ta", "status": "complete", "created": first.said.created}
                for n in range(500)
            ]
            async with database.write() as connection:
                await insert_rows(connection, messages, rows)
            await Search(database).find(Query(query))
        assert len(looked_at) <= 20
    finally:
        event.remove(Engine, "connect", connected)


async def test_a_word_that_stands_nowhere_ends_the_search_at_once(
    conversations: Conversations, search: Search, database_url: str
) -> None:
    await say(conversations, "the quick brown fox")
    if database_url.startswith("sqlite"):
        with statements() as asked:
            assert await search.find(Query("the c#")) == []
        assert not [one for one in asked if "conversations" in one]
    assert await search.find(Query("c# the")) == []


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_a_page_far_down_looks_at_no_text_above_it(home: Path) -> None:
    async with await Database.open(home / "many.db") as database:
        conversations = Conversations(database)
        await say(conversations, *(f"entry {number}" for number in range(60)))
        with statements() as asked:
            [hit, *_] = await Search(database).find(Query("entry"), 10, 40)
        assert hit.snippet == "entry 19"
        [query] = [statement for statement in asked if "MATCH" in statement]
        assert "OFFSET" in query
        assert "REGEXP" not in query
        assert "LIKE" not in query


async def test_a_word_of_any_length_is_looked_for_in_any_place(conversations: Conversations, search: Search) -> None:
    word = "ab" * 30_000
    here = await say(conversations, f"{word} end", "a" * 60_000)
    for where in ({}, {"conversation": here}):
        assert len(await found(search, word, **where)) == 1
        assert len(await found(search, f'"{word} end"', **where)) == 1
        assert len(await found(search, "a" * 60_000, **where)) == 1
    assert words_of(word) == [word[:LONGEST_WORD]]


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
        await conversations.save_replies({reply.id: part})
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
