"""Conversations read whole, and put back as they were; what is there already is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, select, update

from storage.attachments import Attachment
from storage.conversations import Conversation, Message
from storage.database import Database, insert_rows
from storage.errors import StorageError
from storage.feedback import Feedback
from storage.schema import attachments, conversations, feedback, messages, summaries
from storage.summaries import Summary

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Archived:
    """A conversation and all that belongs to it; messages in the order they were said."""

    conversation: Conversation
    messages: Sequence[Message]
    feedback: Sequence[Feedback]
    attachments: Sequence[Attachment]
    summaries: Sequence[Summary]


async def known_files(database: Database, attachment_ids: Sequence[str]) -> set[str]:
    """Which of some attachments are there."""
    query = select(attachments.c.id).where(attachments.c.id.in_(attachment_ids))
    async with database.read() as connection:
        return set((await connection.execute(query)).scalars())


async def put_back(database: Database, archived: Archived) -> int:
    """Store what of it is not there yet; returns how many messages that were.

    Raises:
        StorageError: a message of that id stands in another conversation.
    """
    here = archived.conversation
    async with database.write() as connection:
        known = select(conversations.c.leaf_id).where(conversations.c.id == here.id)
        standing = (await connection.execute(known)).one_or_none()
        if standing is None:
            await connection.execute(insert(conversations).values(**asdict(here)))
        present: set[str] = set()
        for begin in range(0, len(archived.messages), _AT_ONCE):
            ids = [message.id for message in archived.messages[begin : begin + _AT_ONCE]]
            there = select(messages.c.id, messages.c.conversation_id).where(messages.c.id.in_(ids))
            for row in await connection.execute(there):
                if row.conversation_id != here.id:
                    raise StorageError(f"The message '{row.id}' stands in another conversation already.")
                present.add(row.id)
        columns = [name for name in Message.__dataclass_fields__ if name in messages.c]
        fresh = [
            {name: getattr(message, name) for name in columns}
            for message in archived.messages
            if message.id not in present
        ]
        if fresh:
            await insert_rows(connection, messages, fresh)
            if standing is not None and standing.leaf_id is None:
                await connection.execute(
                    update(conversations).where(conversations.c.id == here.id).values(leaf_id=here.leaf_id)
                )
        for table, rows in (
            (feedback, archived.feedback),
            (attachments, archived.attachments),
            (summaries, archived.summaries),
        ):
            added = [asdict(row) for row in rows if row.message_id not in present]
            await insert_rows(connection, table, added)
    return len(fresh)
