"""Search over everything ever said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from sqlalchemy import ARRAY, BigInteger, Row, Select, bindparam, column, func, literal_column, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.conversations import Role
from storage.database import Database
from storage.grams import LONGEST, grams_of
from storage.schema import conversations, messages

Order = Literal["newest", "best"]

MOST_WORDS = 32
"""Distinct words of a query that count; a whole pasted page narrows no further."""

SNIPPET = 160
"""Characters of a snippet, about."""

RANKED = 1_000
"""Newest messages found, of which the best come first."""

USUAL_LENGTH = 400
"""Characters of a message neither long nor short."""

RECENT = 4_000
"""Newest messages that are read through for a short word."""

MOST_PLACES = 20_000
"""Places of a short word in all messages, above which it counts as common."""

_PARTS = re.compile(r'"([^"]*)"|(\S+)')


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: words that must all be there, and where.

    Args:
        text: words, in any order; those within double quotes stand in that order. Nothing else is special.
        conversation: in this one alone.
        person: in the conversations of this person alone.
        role: said by that side alone.
        since: said then or later.
        until: said before then.
        order: `newest` first; or `best` first, among the newest 1,000 that are found.
    """

    text: str
    conversation: str | None = None
    person: str | None = None
    role: Role | None = None
    since: datetime | None = None
    until: datetime | None = None
    order: Order = "newest"


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found. `marks` are (begin, end) of what matches, in characters of `snippet`; `…` at either
    end of that stands for more."""

    message_id: str
    conversation_id: str
    title: str
    role: Role
    created: datetime
    snippet: str
    marks: Sequence[tuple[int, int]] = field(default=())


class TextIndex(Protocol):
    """How one kind of database finds messages by their text."""

    async def ways(
        self, connection: AsyncConnection, rows: Select[Any], words: Sequence[str], query: Query
    ) -> Sequence[Select[Any]]:
        """Narrow `rows`, a query over messages, to those that contain `words`, and order them, the newest first.

        There may be several ways: a later one is asked where the one before gave fewer than were wanted. Some that do
        not contain all words may come too: every row is looked at again.
        """
        ...


class Search:
    """Finds messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, query: Query, limit: int = 20, offset: int = 0) -> Sequence[Hit]:
        """The messages that contain all words of `query`, `limit` of them from `offset` on; none for a query without
        words. Any text is safe."""
        words = words_of(query.text)
        if not words:
            return []
        patterns = [_pattern(word) for word in words]
        wanted = limit + offset if query.order == "newest" else RANKED
        async with self._database.read() as connection:
            found: list[Row[Any]] = []
            index = _INDEXES[connection.dialect.name]
            for way in await index.ways(connection, _rows(query), words, query):
                found = await _matching(connection, way, patterns, wanted)
                if len(found) >= wanted:
                    break
        if query.order == "best":
            found.sort(key=lambda row: _score(row.text, patterns), reverse=True)
        return [_hit(row, patterns) for row in found[offset : offset + limit]]


async def _matching(
    connection: AsyncConnection, rows: Select[Any], patterns: Sequence[re.Pattern[str]], wanted: int
) -> list[Row[Any]]:
    found: list[Row[Any]] = []
    async with connection.stream(rows) as stream:
        async for row in stream:
            if all(pattern.search(row.text) for pattern in patterns):
                found.append(row)
                if len(found) == wanted:
                    break
    return found


def _hit(row: Row[Any], patterns: Sequence[re.Pattern[str]]) -> Hit:
    snippet, marks = snippet_of(row.text, patterns)
    return Hit(row.id, row.conversation_id, row.title, row.role, row.created, snippet, marks)


def _score(text: str, patterns: Sequence[re.Pattern[str]]) -> float:
    """BM25 (Robertson and Zaragoza, 2009) within the found: all have all words, so that rarity does not count."""
    length = 0.25 + 0.75 * len(text) / USUAL_LENGTH
    counts = (len(pattern.findall(text)) for pattern in patterns)
    return sum(count * 2.2 / (count + 1.2 * length) for count in counts)


def words_of(query: str) -> list[str]:
    """The distinct words of a query in lower case, those within double quotes as one."""
    found = (" ".join((quoted or plain).split()) for quoted, plain in _PARTS.findall(clean(query).lower()))
    return [word for word in dict.fromkeys(found) if word][:MOST_WORDS]


def clean(text: str) -> str:
    """Without what no stored message has: NUL, and halves of surrogate pairs."""
    return re.sub("[\0\ud800-\udfff]", " ", text)


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join(map(re.escape, word.split())), re.IGNORECASE)


def snippet_of(text: str, patterns: Sequence[re.Pattern[str]]) -> tuple[str, list[tuple[int, int]]]:
    """A piece of `text` around what matches first, on one line, and where in it everything matches."""
    first = min((match.start() for pattern in patterns if (match := pattern.search(text))), default=0)
    begin = max(0, first - SNIPPET // 3)
    if begin:  # at a word's beginning, where one is near
        space = text.find(" ", begin, first)
        begin = space + 1 if 0 <= space < begin + 15 else begin
    piece = text[begin : begin + SNIPPET]
    line = re.sub(r"\s", " ", piece)
    shift = 1 if begin else 0
    spans = sorted(match.span() for pattern in patterns for match in pattern.finditer(piece))
    marks: list[tuple[int, int]] = []
    for start, end in spans:
        if marks and start + shift < marks[-1][1]:
            marks[-1] = (marks[-1][0], max(end + shift, marks[-1][1]))
        else:
            marks.append((start + shift, end + shift))
    return "…" * shift + line + "…" * (begin + SNIPPET < len(text)), marks


def _rows(query: Query) -> Select[Any]:
    rows = select(
        messages.c.id,
        messages.c.conversation_id,
        messages.c.role,
        messages.c.created,
        messages.c.text,
        conversations.c.title,
    ).join(conversations, conversations.c.id == messages.c.conversation_id)
    rows = rows.where(messages.c.status != "streaming")
    if query.conversation is not None:
        rows = rows.where(messages.c.conversation_id == query.conversation)
    if query.person is not None:
        rows = rows.where(conversations.c.person_id == query.person)
    if query.role is not None:
        rows = rows.where(messages.c.role == query.role)
    if query.since is not None:
        rows = rows.where(messages.c.created >= query.since)
    if query.until is not None:
        rows = rows.where(messages.c.created < query.until)
    return rows


def like(rows: Select[Any], words: Sequence[str]) -> Select[Any]:
    """`rows` that contain `words`, by looking at each, the newest first; on every back end.

    A letter whose case the database may not know about stands for any character.
    """
    for word in words:
        pattern = "".join(
            "%"
            if character == " "
            else f"\\{character}"
            if character in "%_\\"
            else character
            if character.isascii() or character.lower() == character.upper()
            else "_"
            for character in word
        )
        rows = rows.where(messages.c.text.ilike(f"%{pattern}%", escape="\\"))
    return rows.order_by(messages.c.seq.desc())


class SqliteIndex:
    """FTS5 over trigrams. A word of one or two characters is the beginning of some, which its vocabulary lists."""

    async def ways(
        self, connection: AsyncConnection, rows: Select[Any], words: Sequence[str], query: Query
    ) -> Sequence[Select[Any]]:
        if query.conversation is not None:
            return [like(rows, words)]
        parts = [part for word in words for part in word.split()]
        if trigrams := [part for part in parts if len(part) > 2]:
            match = " ".join('"{}"'.format(part.replace('"', '""')) for part in trigrams)
            index = table("messages_index", column("rowid"))
            found = rows.join(index, index.c.rowid == messages.c.seq).where(text("messages_index MATCH :match"))
            return [found.params(match=match).order_by(index.c.rowid.desc())]
        # What is common stands in what was said lately; what is not is looked up. Between the two lies what was
        # common once, or is filtered out: there, and only there, all is read through.
        newest = select(func.max(messages.c.seq)).scalar_subquery()
        lately = like(rows.where(messages.c.seq > newest - RECENT), words)
        word = max(parts, key=len)
        vocabulary = table("messages_trigrams", column("doc"), column("term"))
        listed = select(vocabulary.c.doc).where(
            vocabulary.c.term >= word, vocabulary.c.term < word[:-1] + chr(ord(word[-1]) + 1)
        )
        places = (await connection.execute(listed.limit(MOST_PLACES))).scalars().all()
        if len(places) == MOST_PLACES:
            return [lately, like(rows, words)]
        return [lately, like(rows.where(messages.c.seq.in_(listed)), words)]


class PostgresIndex:
    """GIN over all runs of one to three characters of a message, made by the function `chatbot_grams`."""

    async def ways(
        self, connection: AsyncConnection, rows: Select[Any], words: Sequence[str], query: Query
    ) -> Sequence[Select[Any]]:
        parts = [part for word in words for part in word.split()]
        grams = sorted({gram for part in parts for gram in grams_of(part)})
        if not grams:
            return [like(rows, words)]
        contained = func.chatbot_grams(messages.c.text).op("@>")(bindparam("grams", grams, ARRAY(BigInteger)))
        # The index first, whatever the planner thinks: looking at a row without it means making its runs anew.
        numbers = rows.with_only_columns(messages.c.seq, maintain_column_froms=True)
        narrowed = numbers.where(literal_column("status <> 'streaming'"), contained).cte("narrowed")
        narrowed = narrowed.prefix_with("MATERIALIZED")
        found = rows.join(narrowed, narrowed.c.seq == messages.c.seq).order_by(messages.c.seq.desc())
        if max(map(len, parts)) >= LONGEST:
            return [found]
        if query.conversation is not None:
            return [rows.order_by(messages.c.seq.desc()).limit(RECENT), found]
        newest = select(messages.c.seq).order_by(messages.c.seq.desc()).offset(RECENT).limit(1)
        before = (await connection.execute(newest)).scalar() or 0
        return [like(rows.where(messages.c.seq > before), words), found]


_INDEXES: dict[str, TextIndex] = {"sqlite": SqliteIndex(), "postgresql": PostgresIndex()}
