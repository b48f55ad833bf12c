"""Conversations: trees of messages, and what was typed but not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import tree, turns
from storage.database import Database, once_more_if_lost
from storage.errors import NotFoundError
from storage.people import LOCAL
from storage.processes import is_gone, this_process
from storage.records import Conversation, Message, Status, Turn, title_of
from storage.schema import authors, conversations, drafts, messages, people

_AT_ONCE = 500

_BRANCH = tree.branch(turns.MESSAGE_COLUMNS)
_FOLLOWING = tree.following(turns.MESSAGE_COLUMNS)
_EVERYTHING = (
    tree.with_siblings(turns.MESSAGE_COLUMNS)
    .where(messages.c.conversation_id == bindparam("conversation"))
    .order_by(messages.c.seq)
)
_PINNED = tree.branch(turns.MESSAGE_COLUMNS, since=bindparam("since")).where(messages.c.pinned)
_FIRST_PINNED = (
    select(messages.c.seq)
    .where(
        # As the index says it: SQLite does not see that `pinned = 1`, as SQLAlchemy would write, is the same.
        literal_column("messages.pinned"),
        messages.c.conversation_id == tree.CONVERSATION_OF_LEAF,
    )
    .order_by(messages.c.seq)
    .limit(1)
)
_ONE = tree.with_siblings(turns.MESSAGE_COLUMNS).where(messages.c.id == bindparam("message"))
# Every turn runs these: to make them anew would take nearly as long as to run them.
_SAVE = (
    update(messages)
    .where(messages.c.id == bindparam("reply"))
    .values(text=bindparam("text"), status="streaming", owner=bindparam("owner"), heartbeat=bindparam("heartbeat"))
)
_END = (
    update(messages)
    .where(messages.c.id == bindparam("reply"))
    .values(
        {name: bindparam(name) for name in ("text", "status", "model", "finish_reason", "usage", "error")}
        | {"owner": None, "heartbeat": None}
    )
)


class Conversations:
    """What was said, by conversation. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, system: str, title: str = "", model: str = "", person: str = LOCAL) -> Conversation:
        conversation = Conversation.new(system, title, model, person)
        async with self._database.write(conversation.id) as connection:
            conversation = replace(conversation, updated=await connection.run_sync(turns.next_moment))
            await connection.execute(turns.BEGIN, turns.fields_of(conversation))
        return conversation

    async def get(self, conversation_id: str) -> Conversation:
        """Raises NotFoundError where there is none of that id."""
        return await self._database.query(turns.conversation_in, conversation_id)

    async def exists(self, conversation_id: str) -> bool:
        query = select(conversations.c.id).where(conversations.c.id == conversation_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def list(
        self, limit: int | None = None, after: Conversation | None = None, *, person: str | None = None
    ) -> Sequence[Conversation]:
        """Conversations, the one last spoken in first.

        Args:
            limit: how many at most.
            after: those that follow this one, the last of the page before.
            person: of this one alone.
        """
        key = tuple_(conversations.c.updated, conversations.c.id)
        query = select(conversations).order_by(conversations.c.updated.desc(), conversations.c.id.desc())
        if after is not None:
            types = (conversations.c.updated.type, conversations.c.id.type)
            query = query.where(key < tuple_(after.updated, after.id, types=types))
        if person is not None:
            query = query.where(conversations.c.person_id == person)
        async with self._database.read() as connection:
            return [turns.conversation_of(row) for row in await connection.execute(query.limit(limit))]

    async def rename(self, conversation_id: str, title: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, title=title_of(title))

    async def set_system(self, conversation_id: str, system: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, system=system)

    async def set_model(self, conversation_id: str, model: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, model=model)

    async def _set(self, conversation_id: str, **values: str) -> None:
        async with self._database.write(conversation_id) as connection:
            await connection.run_sync(turns.conversation_in, conversation_id)
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation_id).values(**values)
            )

    async def add_turn(
        self, conversation: str | Conversation, text: str, *, beside: str | None = None, message_id: str = ""
    ) -> Turn:
        """Add the person's message and an empty reply, owned by this process, and show that branch.

        They join the branch shown, or begin another: `beside` is the message of the person that the new one stands
        in for. A conversation that is to begin with it (`Conversation.new`) is stored with it, or not at all. A
        `message_id` that its front end can tell again is the message's id.

        Raises NotFoundError where there is no such conversation or message.
        """
        scope = conversation.id if isinstance(conversation, Conversation) else conversation
        return await self._database.change(scope, turns.add_turn, conversation, text, beside, message_id)

    async def add_reply(self, conversation_id: str, message_id: str, *, resume: bool = False) -> Turn:
        """Open another reply, owned by this process, and show its branch.

        It answers `message_id`, or stands beside it where that is a reply; with `resume`, it begins with the text of
        that reply.

        Raises NotFoundError where there is no such message, or nothing was said before it.
        """
        return await self._database.change(conversation_id, turns.add_reply, conversation_id, message_id, resume)

    @once_more_if_lost
    async def save_replies(self, texts: Mapping[str, str]) -> None:
        """Keep what has come so far of replies, by id, and say that their writer, this process, lives."""
        owner, now = this_process(), datetime.now(UTC)
        rows = [{"reply": reply, "text": text, "owner": owner, "heartbeat": now} for reply, text in texts.items()]
        await self._database.change(owner, Connection.execute, _SAVE, rows)

    @once_more_if_lost
    async def end_reply(
        self,
        reply_id: str,
        text: str,
        status: Status,
        *,
        model: str | None = None,
        finish_reason: str | None = None,
        usage: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        end = {"model": model, "finish_reason": finish_reason, "usage": usage, "error": error}
        row = {"reply": reply_id, "text": text, "status": status} | end
        await self._database.change(reply_id, Connection.execute, _END, row)

    async def learnable(self, message_ids: Sequence[str]) -> bool:
        """Whether all of these messages are there still, and of people who allow models to learn from them.

        In a conversation of several, both its owner, the group, and whoever said the message have to.
        """
        owned = messages.join(conversations).join(people)
        withheld = select(authors.c.message_id).join(people).where(not_(people.c.may_learn))
        for at in range(0, len(message_ids), _AT_ONCE):
            some = message_ids[at : at + _AT_ONCE]
            query = (
                select(func.count())
                .select_from(owned)
                .where(messages.c.id.in_(some), people.c.may_learn, messages.c.id.not_in(withheld))
            )
            async with self._database.read() as connection:
                if (await connection.execute(query)).scalar_one() != len(set(some)):
                    return False
        return True

    async def models(self) -> set[str]:
        """What conversations name as the model that answers in them."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(conversations.c.model).distinct())).scalars()) - {""}

    async def path(self, leaf_id: str | None, limit: int | None = None, *, person: str = LOCAL) -> Sequence[Message]:
        """The last `limit` messages of the branch that ends in `leaf_id`, the oldest first, as `person` sees them.

        Reads those rows alone, however long the branch is.
        """
        return await self._database.query(_path, leaf_id, limit, person)

    async def following(
        self, leaf_id: str, message_id: str, limit: int, *, person: str = LOCAL
    ) -> Sequence[Message] | None:
        """The next `limit` messages after one on the branch that ends in `leaf_id`, as `person` sees them.

        None where the message is not on that branch. Reads those rows alone; between them and the leaf, ids.
        """
        values = {
            "leaf": leaf_id,
            "message": message_id,
            "count": limit + 1,
            "limit": tree.NO_LIMIT,
            "person": person,
        }
        found = await self._database.query(_messages, _FOLLOWING, values)
        return found[1:] if found and found[0].id == message_id else None

    async def messages(self, conversation_id: str, *, person: str = LOCAL) -> Sequence[Message]:
        """Everything said in a conversation, on all its branches, in the order it was said."""
        values = {"conversation": conversation_id, "person": person}
        async with self._database.read() as connection:
            return [Message(*row) for row in await connection.execute(_EVERYTHING, values)]

    async def message(self, message_id: str, *, person: str = LOCAL) -> Message:
        """Raises NotFoundError where there is none of that id."""
        found = await self._database.query(_messages, _ONE, {"message": message_id, "person": person})
        if not found:
            raise NotFoundError(f"There is no message '{message_id}'.")
        return found[0]

    async def siblings(self, message_id: str) -> Sequence[str]:
        """Ids of the messages that answer what this one answers, itself among them, the oldest first."""
        message = await self.message(message_id)
        same_parent = (
            messages.c.parent_id.is_(None) if message.parent_id is None else messages.c.parent_id == message.parent_id
        )
        query = select(messages.c.id).where(messages.c.conversation_id == message.conversation_id, same_parent)
        async with self._database.read() as connection:
            return (await connection.execute(query.order_by(messages.c.seq))).scalars().all()

    async def switch(self, conversation_id: str, message_id: str) -> str:
        """Show the branch through a message, down to what was said last below it; returns the id of that.

        Raises NotFoundError where there is no such conversation or message.
        """
        async with self._database.write(conversation_id) as connection:
            await connection.run_sync(turns.conversation_in, conversation_id)
            await connection.run_sync(turns.message_in, conversation_id, message_id)
            leaf_id = await newest_leaf(connection, conversation_id, message_id)
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation_id).values(leaf_id=leaf_id)
            )
        return leaf_id

    async def pin(self, message_id: str, pinned: bool) -> None:
        """Let a message always be sent, word for word, or no longer. Raises NotFoundError where there is none."""
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(messages).where(messages.c.id == message_id).values(pinned=pinned)
            )
        if not changed.rowcount:
            raise NotFoundError(f"There is no message '{message_id}'.")

    async def pinned_and_path(self, leaf_id: str, limit: int) -> tuple[Sequence[Message], Sequence[Message]]:
        """The pinned messages of the branch that ends in `leaf_id`, the oldest first, and its `path`, of one moment.

        For the pinned ones the branch is read back to the oldest pinned message of the conversation, and not at all
        where there is none.
        """
        return await self._database.query(
            lambda connection: (_pinned(connection, leaf_id), _path(connection, leaf_id, limit))
        )

    async def mark_interrupted(self) -> int:
        """Mark the replies whose writer is gone; returns how many.

        A writer is gone when its process ended, as seen from the machine it runs on; seen from another, when
        it has not shown itself for `HEARTBEAT_LOST`. Replies of living processes are left alone.
        """
        open_replies = select(messages.c.id, messages.c.owner, messages.c.heartbeat).where(
            messages.c.status == "streaming"
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(open_replies)).all()
        now = datetime.now(UTC)
        gone = [row for row in rows if row.owner != this_process() and is_gone(row.owner, row.heartbeat, now)]
        if gone:
            async with self._database.write() as connection:
                for row in gone:  # only where the writer has not shown itself since
                    await connection.execute(
                        update(messages)
                        .where(messages.c.id == row.id, messages.c.status == "streaming")
                        .where(or_(messages.c.heartbeat == row.heartbeat, messages.c.heartbeat.is_(None)))
                        .values(status="interrupted", owner=None, heartbeat=None)
                    )
        return len(gone)

    async def draft(self, key: str) -> str:
        """What was typed but not sent under `key`: a conversation's id, or any other word."""
        async with self._database.read() as connection:
            found = await connection.execute(select(drafts.c.text).where(drafts.c.key == key))
            return found.scalar() or ""

    async def save_draft(self, key: str, text: str) -> None:
        async with self._database.write(key) as connection:
            await connection.execute(delete(drafts).where(drafts.c.key == key))
            if text:
                await connection.execute(insert(drafts).values(key=key, text=text))


def _messages(connection: Connection, statement: Executable, values: dict[str, Any]) -> Sequence[Message]:
    return [Message(*row) for row in connection.execute(statement, values)]


def _path(connection: Connection, leaf_id: str | None, limit: int | None, person: str = LOCAL) -> Sequence[Message]:
    values = {"leaf": leaf_id, "limit": tree.NO_LIMIT if limit is None else limit, "person": person}
    return _messages(connection, _BRANCH, values)


def _pinned(connection: Connection, leaf_id: str) -> Sequence[Message]:
    since = connection.execute(_FIRST_PINNED, {"leaf": leaf_id}).scalar()
    if since is None:
        return []
    return _messages(connection, _PINNED, {"leaf": leaf_id, "since": since, "limit": tree.NO_LIMIT, "person": LOCAL})


async def newest_leaf(connection: AsyncConnection, conversation_id: str, message_id: str) -> str:
    """The end of the branch through a message that goes at each step to what was said last."""
    values = {"conversation": conversation_id, "message": message_id}
    return str((await connection.execute(tree.NEWEST_LEAF, values)).scalar_one())
