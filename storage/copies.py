"""A conversation, or one branch of it, once more under another id."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime

from sqlalchemy import bindparam, insert, select

from storage import tree, turns
from storage.attachments import Attachments
from storage.database import Database, insert_rows
from storage.erasure import erase_unless_kept, keep_files
from storage.errors import NotFoundError
from storage.records import Conversation
from storage.schema import attachments, conversations, messages, summaries

_COLUMNS = [column for column in messages.c if column.name != "seq"]
_ALL = select(*_COLUMNS).where(messages.c.conversation_id == bindparam("conversation")).order_by(messages.c.seq)
_UP_TO = tree.branch(_COLUMNS)


async def copy(
    database: Database, files: Attachments, conversation_id: str, up_to: str | None = None
) -> Conversation:
    """Copy a conversation with all its branches, or the branch that ends in the message `up_to` alone.

    Attachments, pins and summaries come along; of an attachment whose file is lost, all but that. Feedback does not:
    it was given once. Of a reply that is still being written, the copy has what came.

    Raises NotFoundError where there is no such conversation or message.
    """
    new_files = {file.id: secrets.token_hex(8) for file in await files.of_conversation(conversation_id)}
    await erase_unless_kept(database, [*new_files.values()])
    try:
        async with database.write() as connection:
            source = await connection.run_sync(turns.conversation_in, conversation_id)
            if up_to is None:
                result = await connection.execute(_ALL, {"conversation": conversation_id})
            else:
                values = {"leaf": up_to, "limit": tree.NO_LIMIT, "person": source.person_id}
                result = await connection.execute(_UP_TO, values)
            rows = [{column.name: row._mapping[column.name] for column in _COLUMNS} for row in result]
            if up_to is not None and (not rows or rows[0]["conversation_id"] != conversation_id):
                raise NotFoundError(f"There is no message '{up_to}' in the conversation '{conversation_id}'.")
            ids = {row["id"]: secrets.token_hex(8) for row in rows}
            now = datetime.now(UTC)
            made = replace(
                source,
                id=secrets.token_hex(6),
                leaf_id=ids.get(up_to or source.leaf_id or ""),
                created=now,
                updated=await connection.run_sync(turns.next_moment),
            )
            await connection.execute(insert(conversations).values(**asdict(made)))
            for row in rows:
                row |= {"id": ids[row["id"]], "parent_id": ids.get(row["parent_id"]), "conversation_id": made.id}
                if row["status"] == "streaming":
                    row |= {"status": "interrupted", "owner": None, "heartbeat": None}
            await insert_rows(connection, messages, rows)
            said = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
            for file in await connection.execute(select(attachments).where(attachments.c.message_id.in_(said))):
                if file.message_id in ids:
                    new_id = new_files.setdefault(file.id, secrets.token_hex(8))
                    values = dict(file._mapping) | {"id": new_id, "message_id": ids[file.message_id]}
                    await connection.execute(insert(attachments).values(**values))
                    with suppress(NotFoundError):
                        await files.write(new_id, await files.read(file.id))
            old = select(summaries).where(summaries.c.conversation_id == conversation_id)
            for summary in await connection.execute(old):
                if summary.message_id in ids:
                    values = dict(summary._mapping)
                    values |= {"message_id": ids[summary.message_id], "conversation_id": made.id}
                    await connection.execute(insert(summaries).values(**values))
            await keep_files(connection, [*new_files.values()])
    except BaseException:
        await asyncio.to_thread(files.delete_files, [*new_files.values()])
        raise
    return made
