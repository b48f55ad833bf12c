"""How much a person has said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select

from storage.database import Database
from storage.schema import conversations, feedback, messages


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all branches; `good` and `bad` count what the person rated, wherever it stands."""

    conversations: int
    said: int
    replies: int
    good: int
    bad: int
    since: datetime | None


async def totals(database: Database, person: str) -> Totals:
    mine = conversations.c.person_id == person
    spoken = (
        select(
            func.count(case((messages.c.role == "user", 1))),
            func.count(case((messages.c.role == "assistant", 1))),
        )
        .join(conversations, conversations.c.id == messages.c.conversation_id)
        .where(mine)
    )
    rated = select(func.count(case((feedback.c.value > 0, 1))), func.count(case((feedback.c.value < 0, 1))))
    begun = select(func.count(), func.min(conversations.c.created)).where(mine)
    async with database.read() as connection:
        count, since = (await connection.execute(begun)).one()
        said, replies = (await connection.execute(spoken)).one()
        good, bad = (await connection.execute(rated.where(feedback.c.person_id == person))).one()
    return Totals(count, said, replies, good, bad, since)
