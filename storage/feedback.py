"""What people think of replies: up or down, with a note; one a person and reply, changeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import delete, func, insert, select, update

from storage.database import Database
from storage.errors import NotFoundError
from storage.people import LOCAL
from storage.schema import feedback, messages

Value = Literal[-1, 0, 1]


@dataclass(frozen=True, slots=True)
class Feedback:
    """`value` is 1 or -1."""

    message_id: str
    person_id: str
    value: int
    note: str
    created: datetime
    updated: datetime


class Ratings:
    """Feedback on replies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rate(self, reply_id: str, value: Value, note: str = "", *, person: str = LOCAL) -> None:
        """Say what a person thinks of a reply, in the place of what was said before; 0 takes it back.

        Raises NotFoundError where there is no such reply.
        """
        mine = (feedback.c.message_id == reply_id, feedback.c.person_id == person)
        known = select(messages.c.id).where(messages.c.id == reply_id, messages.c.role == "assistant")
        async with self._database.write() as connection:
            if (await connection.execute(known)).first() is None:
                raise NotFoundError(f"There is no reply '{reply_id}'.")
            if value == 0:
                await connection.execute(delete(feedback).where(*mine))
                return
            now = datetime.now(UTC)
            changed = await connection.execute(
                update(feedback).where(*mine).values(value=value, note=note, updated=now)
            )
            if not changed.rowcount:
                await connection.execute(
                    insert(feedback).values(
                        message_id=reply_id, person_id=person, value=value, note=note, created=now, updated=now
                    )
                )

    async def compared(self) -> set[str]:
        """Ids of the conversations in which a reply was rated, or there are several replies to one message."""
        rated = select(messages.c.conversation_id).join(feedback, messages.c.id == feedback.c.message_id)
        several = (
            select(messages.c.conversation_id)
            .where(messages.c.role == "assistant")
            .group_by(messages.c.conversation_id, messages.c.parent_id)
            .having(func.count() > 1)
        )
        async with self._database.read() as connection:
            return set((await connection.execute(rated.union(several))).scalars())

    async def of_conversation(self, conversation_id: str) -> Sequence[Feedback]:
        """All feedback on the replies of a conversation, in the order of those."""
        query = (
            select(*(feedback.c[name] for name in Feedback.__dataclass_fields__))
            .join(messages, messages.c.id == feedback.c.message_id)
            .where(messages.c.conversation_id == conversation_id)
            .order_by(messages.c.seq, feedback.c.person_id)
        )
        async with self._database.read() as connection:
            return [Feedback(*row) for row in await connection.execute(query)]
