"""Summaries of branches: all that was said up to a message, in short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select

from storage import tree
from storage.database import Database
from storage.schema import messages, summaries

LOOK_BACK = 2_000
"""Messages of a branch among which the newest summary is looked for."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All of a branch up to a message, that included, in short."""

    message_id: str
    conversation_id: str
    text: str
    model: str
    created: datetime


_NEWEST = tree.branch([messages.c.id]).where(summaries.c.text.is_not(None))
_ANY = select(summaries.c.message_id).where(summaries.c.conversation_id == tree.CONVERSATION_OF_LEAF)


class Summaries:
    """Summaries, by the message that each reaches up to: another branch has others."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, leaf_id: str) -> tuple[str, str] | None:
        """The message that the newest summary on the branch up to `leaf_id` reaches up to, and its text."""
        async with self._database.read() as connection:
            if (await connection.execute(_ANY.limit(1), {"leaf": leaf_id})).first() is None:
                return None
            values = {"leaf": leaf_id, "limit": LOOK_BACK, "person": ""}
            rows = (await connection.execute(_NEWEST, values)).all()
        return (rows[-1].id, rows[-1].summary) if rows else None

    async def add(self, summary: Summary, made_from: Sequence[str], previous: str | None) -> bool:
        """Keep a summary, in the place of another that reaches as far.

        False, and nothing is kept, where something that it was made from was forgotten meanwhile: one of the
        messages `made_from`, or the summary that reaches up to `previous`.
        """
        there = select(func.count()).select_from(messages).where(messages.c.id.in_(made_from))
        async with self._database.write() as connection:
            if (await connection.execute(there)).scalar_one() != len(made_from):
                return False
            if previous is not None:
                before = select(summaries.c.message_id).where(summaries.c.message_id == previous)
                if (await connection.execute(before)).first() is None:
                    return False
            await connection.execute(delete(summaries).where(summaries.c.message_id == summary.message_id))
            await connection.execute(insert(summaries).values(asdict(summary)))
        return True

    async def of_conversation(self, conversation_id: str) -> Sequence[Summary]:
        """The summaries of all branches."""
        query = select(summaries).where(summaries.c.conversation_id == conversation_id)
        async with self._database.read() as connection:
            return [Summary(**row._mapping) for row in await connection.execute(query)]
