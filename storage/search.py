"""Search over everything ever said."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Any, Literal, Protocol

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
    text,
    union,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.grams import LONGEST, grams_of
from storage.records import Role
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
"""Newest messages that are read through for what is common."""

MOST_PLACES = 20_000
"""Places of a short word in all messages, above which it counts as common."""

FEW_PLACES = 1_000
"""So few that to look at each costs less than to list what has the other words."""

GAPS = (" ", "\n", "  ", "\n\n", "\t")
"""What mostly stands between the words of a phrase: these are found in all messages."""

LOOKED_AT = 1_000
"""Newest messages with all words of a phrase, in which anything may stand between these."""

LONGEST_WORD = 256
"""Characters of a word that count; a longer one narrows no further."""

_I = "iıİ"
"""All of these are one letter to Python where case does not count, and none is another to most databases."""

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

    async def find(
        self, connection: AsyncConnection, query: Query, words: Sequence[str], limit: int, offset: int
    ) -> Sequence[Row[Any]]:
        """Those messages that contain all `words`, the newest first, `limit` of them from `offset` on."""
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
        async with self._database.read() as connection:
            index = _INDEXES[connection.dialect.name]
            if query.order == "newest":
                found = await index.find(connection, query, words, limit, offset)
            else:
                ranked = sorted(
                    await index.find(connection, query, words, RANKED, 0),
                    key=lambda row: _score(row.text, patterns),
                    reverse=True,
                )
                found = ranked[offset : offset + limit]
        return [_hit(row, patterns) for row in found]


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
    lower = "".join(map(_lower, clean(query)))
    found = (" ".join((quoted or plain).split()) for quoted, plain in _PARTS.findall(lower))
    return [word for word in dict.fromkeys(word[:LONGEST_WORD].strip() for word in found) if word][:MOST_WORDS]


def _lower(character: str) -> str:
    """Itself where it would become two: those are found nowhere."""
    lower = character.lower()
    return lower if len(lower) == 1 else character


def clean(text: str) -> str:
    """Without what no stored message has: NUL, and halves of surrogate pairs."""
    return re.sub("[\0\ud800-\udfff]", " ", text)


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile("(?i)" + r"\s+".join(map(re.escape, word.split())))


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
    near = [match for one in patterns for match in one.finditer(text, begin, begin + SNIPPET + LONGEST_WORD)]
    spans = sorted((match.start() - begin, min(match.end() - begin, SNIPPET)) for match in near)
    spans = [span for span in spans if span[0] < SNIPPET]
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


def _like(word: str) -> ColumnElement[bool]:
    """Texts that contain `word`, by looking at each; on every back end.

    A letter whose case the database may not know about stands for any character: more may come than do contain it.
    """
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
    return messages.c.text.ilike(f"%{pattern}%", escape="\\")


class SqliteIndex:
    """FTS5 over trigrams. A word of one or two characters is the beginning of some, which its vocabulary lists.

    Whatever can be answered by numbers of messages alone is: to look at a text costs more than all else.
    """

    async def find(
        self, connection: AsyncConnection, query: Query, words: Sequence[str], limit: int, offset: int
    ) -> Sequence[Row[Any]]:
        found: Sequence[Row[Any]] = []
        async for way in self._ways(connection, query, words):
            found = (await connection.execute(way.limit(limit).offset(offset))).all()
            if len(found) == limit:
                break
        return found

    async def _ways(
        self, connection: AsyncConnection, query: Query, words: Sequence[str]
    ) -> AsyncIterator[Select[Any]]:
        """Queries for what contains all words: a later one finds more, where the one before found too little."""
        rows = _rows(query)
        newest_first = messages.c.seq.desc()
        long = [word for word in words if len(word) > 2]
        short = {word: await _places(connection, word) for word in words if len(word) <= 2}
        if 0 in short.values():
            return
        common = [_contains(word) for word, places in short.items() if places == MOST_PLACES]
        rare = [messages.c.seq.in_(_listed(word)) for word, places in short.items() if places < MOST_PLACES]
        checks = [*rare, *common, *(_matches(word) for word in long if not _is_sure(word))]
        everywhere = query.conversation is None and not rare
        few = min(short.values(), default=MOST_PLACES) <= FEW_PLACES
        if long and everywhere:
            index = table("messages_index", column("rowid"))
            found = rows.join(index, index.c.rowid == messages.c.seq).where(text("messages_index MATCH :match"))
            yield found.params(match=_match(long)).where(*checks).order_by(index.c.rowid.desc())
        elif long and not few:
            yield rows.where(messages.c.seq.in_(_indexed(_match(long))), *checks).order_by(newest_first)
        else:
            if everywhere:  # what is common stands in what was said lately, mostly
                newest = select(func.max(messages.c.seq)).scalar_subquery()
                yield rows.where(messages.c.seq > newest - RECENT, *checks).order_by(newest_first)
            yield rows.where(*checks, *map(_contains, long)).order_by(newest_first)
        if few:
            return  # whatever stands between the words of a phrase
        if phrases := [word for word in long if " " in word]:
            either = union(_indexed(_match(long)), _loosely(long, phrases)).subquery()
            checks += map(_contains, phrases)
            yield rows.where(messages.c.seq.in_(select(either.c.rowid)), *checks).order_by(newest_first)


def _match(words: Sequence[str]) -> str:
    """What FTS5 is asked for: all words, each in any of its spellings."""
    either = (
        [gap.join(spelled.split(" ")) for spelled in _spellings(word) for gap in (GAPS if " " in word else " ")]
        for word in words
    )
    return " AND ".join("({})".format(" OR ".join(map(_quoted, spelled))) for spelled in either)


def _indexed(match: str) -> Select[Any]:
    index = table("messages_index", column("rowid"))
    return select(index.c.rowid).where(text("messages_index MATCH :match").bindparams(match=match))


def _loosely(words: Sequence[str], phrases: Sequence[str]) -> Select[Any]:
    """The newest messages with `words`, those of `phrases` among them wherever they stand."""
    parts = [part for word in words for part in (word.split() if word in phrases else [word]) if len(part) > 2]
    if not parts:
        newest = select(func.max(messages.c.seq)).scalar_subquery()
        return select(messages.c.seq.label("rowid")).where(messages.c.seq > newest - RECENT)
    index = table("messages_index", column("rowid"))
    match = text("messages_index MATCH :loose").bindparams(loose=_match(parts))
    newest_ones = select(index.c.rowid).where(match).order_by(index.c.rowid.desc()).limit(LOOKED_AT).subquery()
    return select(newest_ones.c.rowid)


def _quoted(word: str) -> str:
    return '"{}"'.format(word.replace('"', '""'))


def _spellings(word: str) -> list[str]:
    """`word` as it may stand in the text, but for what FTS5 takes for the same by itself."""
    spelled = [word]
    if not word.isascii():  # it does not know every letter that has a case
        spelled.append("".join(letter if len(letter := one.upper()) == 1 else one for one in word))
    if place := re.search(f"[{_I}]", word):
        for letter in _I:
            spelled.append(re.sub(f"[{_I}]", letter, word))
            spelled.append(word[: place.start()] + letter + word[place.end() :])
    return list(dict.fromkeys(spelled))


def _is_sure(word: str) -> bool:
    """Whether FTS5 finds nothing but what does contain `word`."""
    return word.isprintable() and all(one.isascii() or one.lower() == one.upper() == one.casefold() for one in word)


def _matches(word: str) -> ColumnElement[bool]:
    return messages.c.text.regexp_match(_pattern(word).pattern)


def _contains(word: str) -> ColumnElement[bool]:
    if _is_sure(word) and not re.search("[A-Za-z ]", word):
        return func.instr(messages.c.text, word) > 0  # in no case but its own
    spelled = or_(*(_like(one) for one in _spellings(word)))
    return spelled if _is_sure(word) and " " not in word else and_(spelled, _matches(word))


def _listed(word: str) -> Select[Any]:
    """The messages with a word of one or two characters, once for every place."""
    vocabulary = table("messages_trigrams", column("doc"), column("term"))
    families = [_family(one) for one in word]
    places = []
    for spelled in map("".join, product(*families)):
        place = select(vocabulary.c.doc).where(vocabulary.c.term >= spelled)
        end = _after(spelled)
        places.append(place if end is None else place.where(vocabulary.c.term < end))
    every = union_all(*places).subquery()
    return select(every.c.doc)


def _family(one: str) -> list[str]:
    """A character as it may stand in the vocabulary, which has made most letters lower-case."""
    if one in _I:
        return list(_I)
    alike = [one] if one.isascii() else [one, one.lower(), one.upper(), one.casefold()]
    return [spelled for spelled in dict.fromkeys(alike) if len(spelled) == 1]


def _after(word: str) -> str | None:
    """What sorts behind all that begins with `word`; None: nothing does."""
    word = word.rstrip("\U0010ffff")
    if not word:
        return None
    return word[:-1] + chr(0xE000 if word[-1] == "\ud7ff" else ord(word[-1]) + 1)  # no text has what lies between


async def _places(connection: AsyncConnection, word: str) -> int:
    """In how many places a word of one or two characters stands, up to `MOST_PLACES`."""
    some = _listed(word).limit(MOST_PLACES).subquery()
    return int((await connection.execute(select(func.count()).select_from(some))).scalar_one())


class PostgresIndex:
    """GIN over all runs of one to three characters of a message, made by the function `chatbot_grams`."""

    async def find(
        self, connection: AsyncConnection, query: Query, words: Sequence[str], limit: int, offset: int
    ) -> Sequence[Row[Any]]:
        patterns = [_pattern(word) for word in words]
        found: list[Row[Any]] = []
        for way in await self._ways(connection, query, words):
            found = await _matching(connection, way, patterns, limit + offset)
            if len(found) == limit + offset:
                break
        return found[offset:]

    async def _ways(self, connection: AsyncConnection, query: Query, words: Sequence[str]) -> Sequence[Select[Any]]:
        """Queries for what may contain all words: a later one finds more, where the one before found too little."""
        rows = _rows(query)
        looked_at = rows.where(*map(_like, words)).order_by(messages.c.seq.desc())
        parts = [part for word in words for part in word.split()]
        grams = sorted({gram for part in parts for gram in grams_of(part)})
        if not grams:
            return [looked_at]
        contained = func.chatbot_grams(messages.c.text).op("@>")(bindparam("grams", grams, ARRAY(BigInteger)))
        # The index first, whatever the planner thinks: looking at a row without it means making its runs anew.
        numbers = rows.with_only_columns(messages.c.seq, maintain_column_froms=True)
        narrowed = numbers.where(literal_column("status <> 'streaming'"), contained).cte("narrowed")
        narrowed = narrowed.prefix_with("MATERIALIZED")
        found = rows.join(narrowed, narrowed.c.seq == messages.c.seq).order_by(messages.c.seq.desc())
        found = found.where(*(_like(word) for word in words if " " in word))
        if query.conversation is not None:
            if max(map(len, parts)) >= LONGEST:
                return [found]
            return [rows.order_by(messages.c.seq.desc()).limit(RECENT), found]
        newest = select(messages.c.seq).order_by(messages.c.seq.desc()).offset(RECENT).limit(1)
        before = (await connection.execute(newest)).scalar() or 0
        return [looked_at.where(messages.c.seq > before), found]


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


_INDEXES: dict[str, TextIndex] = {"sqlite": SqliteIndex(), "postgresql": PostgresIndex()}
