"""Conversations read whole, and put back as they were; what is there already is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.attachments import Attachment, Attachments
from storage.database import Database, insert_rows
from storage.erasure import erase_unless_kept, keep_files
from storage.errors import StorageError
from storage.feedback import Feedback
from storage.records import Conversation, Message
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


async def put_back(database: Database, archived: Archived, files: Attachments, data: Mapping[str, bytes]) -> int:
    """Store what of it is not there yet; returns how many messages that were.

    Where the branch shown goes on in what is new, its new end is shown.

    Args:
        database: where to.
        archived: a conversation with all that belongs to it.
        files: keeps the files of the messages that are added.
        data: what is in these, by the ids of the attachments.

    Raises:
        StorageError: a message of that id stands in another conversation, or an attachment of that id is another
            message's.
    """
    here = archived.conversation
    written: list[str] = []
    await erase_unless_kept(database, [*data])
    try:
        async with database.write() as connection:
            known = select(conversations).where(conversations.c.id == here.id)
            standing = (await connection.execute(known)).one_or_none()
            if standing is None:
                await connection.execute(insert(conversations).values(**asdict(here)))
            present = await _present(connection, archived)
            columns = [name for name in Message.__dataclass_fields__ if name in messages.c]
            fresh = [message for message in archived.messages if message.id not in present]
            added = [file for file in archived.attachments if file.message_id not in present]
            await _check_free(connection, added)
            await insert_rows(
                connection, messages, [{name: getattr(message, name) for name in columns} for message in fresh]
            )
            if standing is not None and fresh:
                await _go_on(connection, standing, archived, {message.id: message.parent_id for message in fresh})
            for table, rows in (
                (feedback, archived.feedback),
                (attachments, added),
                (summaries, archived.summaries),
            ):
                await insert_rows(connection, table, [asdict(row) for row in rows if row.message_id not in present])
            for file in added:
                if file.id in data:
                    written.append(file.id)
                    await files.write(file.id, data[file.id])
            await keep_files(connection, [*data])
    except BaseException:
        await asyncio.to_thread(files.delete_files, written)
        raise
    return len(fresh)


async def _present(connection: AsyncConnection, archived: Archived) -> set[str]:
    """Ids of the messages that are there already."""
    present: set[str] = set()
    for begin in range(0, len(archived.messages), _AT_ONCE):
        ids = [message.id for message in archived.messages[begin : begin + _AT_ONCE]]
        there = select(messages.c.id, messages.c.conversation_id).where(messages.c.id.in_(ids))
        for row in await connection.execute(there):
            if row.conversation_id != archived.conversation.id:
                raise StorageError(f"The message '{row.id}' stands in another conversation already.")
            present.add(row.id)
    return present


async def _check_free(connection: AsyncConnection, files: Sequence[Attachment]) -> None:
    for begin in range(0, len(files), _AT_ONCE):
        ids = [file.id for file in files[begin : begin + _AT_ONCE]]
        taken = (
            await connection.execute(select(attachments.c.id).where(attachments.c.id.in_(ids)).limit(1))
        ).scalar()
        if taken is not None:
            raise StorageError(f"The attachment '{taken}' belongs to another message already.")


async def _go_on(
    connection: AsyncConnection, standing: Row[Any], archived: Archived, parents: Mapping[str, str | None]
) -> None:
    """Show the end of the branch that was shown where it goes on, by the `parents` of the messages that are new."""
    at = archived.conversation.leaf_id
    while at is not None and at in parents:
        at = parents[at]
    if standing.leaf_id in (at, None) and archived.conversation.leaf_id in parents:
        values = {
            "leaf_id": archived.conversation.leaf_id,
            "updated": max(standing.updated, archived.conversation.updated),
            "title": standing.title or archived.conversation.title,
        }
        await connection.execute(update(conversations).where(conversations.c.id == standing.id).values(**values))
