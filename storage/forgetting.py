"""Forgetting: a message, a conversation, or all of a person, from tables, search index, files and bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import tree, turns
from storage.attachments import Attachments
from storage.conversations import newest_leaf
from storage.database import Database
from storage.erasure import erase, erase_files_later, erase_traces_later, is_unfinished
from storage.errors import NotFoundError, StorageError
from storage.inbox import forget_sender
from storage.people import LOCAL
from storage.records import title_of
from storage.schema import attachments, authors, conversations, drafts, messages, people, summaries

After = Callable[[], Awaitable[None]]

Hook = Callable[[AsyncConnection, Sequence[str]], Awaitable[After | None]]
"""Forgets what else is kept of some messages, given by their ids: in the transaction that deletes them, before it
does. What raises keeps everything. What it gives back is called when they are gone: to delete files, say. Without
messages: what an earlier process was killed before is to be done again."""

ONCE_S = 0.2
"""How long opening the database waits for those who read it."""

_AT_ONCE = 500


class Forgetting:
    """Deletes for good. Whatever keeps more of a message than its row and its attachments joins with `add`.

    Every method returns whether the bytes are gone too. False: another process was reading an older state all the
    while; the log file keeps pages of it until that process ends.
    """

    def __init__(self, database: Database, files: Attachments) -> None:
        self._database = database
        self._files = files
        self._hooks: list[Hook] = [self._files_of]

    def add(self, hook: Hook) -> None:
        """Let `hook` forget along, from now on."""
        self._hooks.append(hook)

    async def message(self, message_id: str) -> bool:
        """Forget one message; what followed it follows what stood before it.

        The summaries that cover it go too, and a title that was made from it. Raises NotFoundError.
        """
        async with self._database.write() as connection:
            await erase_traces_later(connection)
            after = await self._forget_message(connection, message_id)
        return await self._finish(after)

    async def _forget_message(self, connection: AsyncConnection, message_id: str) -> list[After]:
        row = (await connection.execute(select(messages).where(messages.c.id == message_id))).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no message '{message_id}'.")
        conversation = await connection.run_sync(turns.conversation_in, row.conversation_id)
        covering = tree.DESCENDANTS.subquery()
        await connection.execute(
            delete(summaries).where(summaries.c.message_id.in_(select(covering.c.id))), {"message": message_id}
        )
        await connection.execute(
            update(messages).where(messages.c.parent_id == message_id).values(parent_id=row.parent_id)
        )
        after = await self._leave(connection, [message_id])
        await connection.execute(delete(messages).where(messages.c.id == message_id))
        changes: dict[str, Any] = {}
        if conversation.leaf_id == message_id:
            changes["leaf_id"] = await _leaf_after(connection, conversation.id, row.parent_id)
        if conversation.title == title_of(row.text):
            first = select(messages.c.text).where(
                messages.c.conversation_id == conversation.id, messages.c.role == "user"
            )
            left = (await connection.execute(first.order_by(messages.c.seq).limit(1))).scalar()
            changes["title"] = title_of(left or "")
        if changes:
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation.id).values(**changes)
            )
        return after

    async def conversation(self, conversation_id: str) -> bool:
        """Forget a conversation with all its branches, and its draft. Raises NotFoundError."""
        async with self._database.write() as connection:
            await connection.run_sync(turns.conversation_in, conversation_id)
            after = await self._forget(connection, [conversation_id])
        return await self._finish(after)

    async def person(self, person_id: str) -> bool:
        """Forget someone: conversations, what they said in those of others with the replies to it, feedback, what
        waits to be answered, and that there was anyone. Raises NotFoundError."""
        async with self._database.write() as connection:
            known = (await connection.execute(select(people).where(people.c.id == person_id))).one_or_none()
            if known is None:
                raise NotFoundError(f"Nobody is known under the id '{person_id}'.")
            theirs = select(conversations.c.id).where(conversations.c.person_id == person_id)
            after = await self._forget(connection, (await connection.execute(theirs)).scalars().all())
            said = select(authors.c.message_id).where(authors.c.person_id == person_id)
            answers = select(messages.c.id).where(messages.c.parent_id.in_(said), messages.c.role == "assistant")
            for query in (answers, said):
                for message_id in (await connection.execute(query)).scalars().all():
                    after += await self._forget_message(connection, message_id)
            await forget_sender(connection, known.platform, known.external_id)
            await connection.execute(delete(people).where(people.c.id == person_id))
            if person_id == LOCAL:  # who sits here may begin again
                fresh = {"id": LOCAL, "platform": LOCAL, "external_id": "", "name": ""}
                await connection.execute(insert(people).values(fresh))
                others = select(conversations.c.id)  # what was typed for a conversation that has not begun is theirs
                await connection.execute(delete(drafts).where(drafts.c.key.not_in(others)))
        return await self._finish(after)

    async def resume(self) -> None:
        """Go on with what a process was killed before it had erased, and with what others then still read.

        What cannot be done now is left to the next time.
        """
        if await is_unfinished(self._database):
            with suppress(StorageError):
                async with self._database.write() as connection:
                    after = [await hook(connection, ()) for hook in self._hooks]
                for later in after:
                    if later is not None:
                        await later()
                await erase(self._database, self._files, ONCE_S)

    async def _forget(self, connection: AsyncConnection, conversation_ids: Sequence[str]) -> list[After]:
        after: list[After] = []
        await erase_traces_later(connection)
        for conversation_id in conversation_ids:
            said = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
            after += await self._leave(connection, (await connection.execute(said)).scalars().all())
            await connection.execute(delete(drafts).where(drafts.c.key == conversation_id))
            await connection.execute(delete(conversations).where(conversations.c.id == conversation_id))
        return after

    async def _leave(self, connection: AsyncConnection, message_ids: Sequence[str]) -> list[After]:
        """Let everyone forget some messages; gives what is to be done when they are gone."""
        after: list[After] = []
        for begin in range(0, len(message_ids), _AT_ONCE):
            some = message_ids[begin : begin + _AT_ONCE]
            later = [await hook(connection, some) for hook in self._hooks]
            after += [one for one in later if one is not None]
        return after

    async def _finish(self, after: Sequence[After]) -> bool:
        for later in after:
            await later()
        return await erase(self._database, self._files)

    async def _files_of(self, connection: AsyncConnection, message_ids: Sequence[str]) -> None:
        query = select(attachments.c.id).where(attachments.c.message_id.in_(message_ids))
        await erase_files_later(connection, (await connection.execute(query)).scalars().all())


async def _leaf_after(connection: AsyncConnection, conversation_id: str, parent_id: str | None) -> str | None:
    """The branch to show when the end of the one shown is gone: the newest through what stood before it."""
    if parent_id is not None:
        return await newest_leaf(connection, conversation_id, parent_id)
    roots = select(messages.c.id).where(messages.c.conversation_id == conversation_id, messages.c.parent_id.is_(None))
    newest = (await connection.execute(roots.order_by(messages.c.seq.desc()).limit(1))).scalar()
    return None if newest is None else await newest_leaf(connection, conversation_id, newest)
