"""Conversations: trees of messages, and what was typed but not sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Executable,
    Row,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import tree
from storage.database import Database, once_more_if_lost
from storage.errors import NotFoundError
from storage.people import LOCAL
from storage.processes import is_gone, this_process
from storage.schema import conversations, drafts, messages, people

Role = Literal["user", "assistant"]
Status = Literal["streaming", "complete", "interrupted", "stopped", "failed"]
"""`streaming`: its writer is alive; `interrupted`: its writer died; `stopped`: the person stopped it."""

TITLE_LENGTH = 60
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Conversation:
    """`model` answers in it, NAME[@VERSION]; empty: the one in use. `leaf_id` ends the branch that is shown."""

    id: str
    title: str
    system: str
    model: str
    leaf_id: str | None
    created: datetime
    updated: datetime
    person_id: str = LOCAL

    @classmethod
    def new(cls, system: str, title: str = "", model: str = "", person: str = LOCAL) -> Conversation:
        """One that is stored nowhere yet."""
        now = datetime.now(UTC)
        return cls(secrets.token_hex(6), title, system, model, None, now, now, person)


@dataclass(frozen=True, slots=True)
class Message:
    """`usage` holds the token counts and timings of a reply; `error` says why one failed; what is `pinned` is always
    sent, word for word.

    On a branch (`Conversations.path`) it is number `position` of `siblings` that answer the same message, the oldest
    first; `rating` is what a person thinks of it (1 or -1; 0: has not said) and `note` why, `summary` tells all of
    the branch up to it in short, where that was made, and it has `attached` files.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    status: Status
    created: datetime
    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None
    pinned: bool = False
    position: int = 1
    siblings: int = 1
    rating: int = 0
    summary: str | None = None
    note: str = ""
    attached: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person said, the reply opened to it, and the conversation as it was before.

    The text of a reply that goes on from a cut one is what had come of that.
    """

    said: Message
    reply: Message
    conversation: Conversation


_MESSAGE_COLUMNS = [messages.c[name] for name in Message.__dataclass_fields__ if name in messages.c]

_BRANCH = tree.branch(_MESSAGE_COLUMNS)
_FOLLOWING = tree.following(_MESSAGE_COLUMNS)
_EVERYTHING = (
    tree.with_siblings(_MESSAGE_COLUMNS)
    .where(messages.c.conversation_id == bindparam("conversation"))
    .order_by(messages.c.seq)
)
_PINNED = tree.branch(_MESSAGE_COLUMNS, since=bindparam("since")).where(messages.c.pinned)
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
_ONE = tree.with_siblings(_MESSAGE_COLUMNS).where(messages.c.id == bindparam("message"))
# Every turn runs these: to make them anew would take nearly as long as to run them.
_BEGIN = insert(conversations)
_INSERT = insert(messages)
_NEWEST = select(func.max(conversations.c.updated))
_CONVERSATION = select(conversations).where(conversations.c.id == bindparam("conversation"))
_SAID = select(*_MESSAGE_COLUMNS).where(
    messages.c.id == bindparam("message"), messages.c.conversation_id == bindparam("conversation")
)
_SHOW = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(leaf_id=bindparam("leaf"), title=bindparam("title"), updated=bindparam("updated"))
)
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


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(**{name: row._mapping[name] for name in Conversation.__dataclass_fields__})


def _fields(conversation: Conversation) -> dict[str, Any]:
    return {name: getattr(conversation, name) for name in Conversation.__dataclass_fields__}


class Conversations:
    """What was said, by conversation. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, system: str, title: str = "", model: str = "", person: str = LOCAL) -> Conversation:
        conversation = Conversation.new(system, title, model, person)
        async with self._database.write(conversation.id) as connection:
            conversation = replace(conversation, updated=await next_moment(connection))
            await connection.execute(_BEGIN, _fields(conversation))
        return conversation

    async def get(self, conversation_id: str) -> Conversation:
        """Raises NotFoundError where there is none of that id."""
        return await self._database.query(_found, conversation_id)

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
            return [_conversation(row) for row in await connection.execute(query.limit(limit))]

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
            await conversation_in(connection, conversation_id)
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
        return await self._database.change(scope, _add_turn, conversation, text, beside, message_id)

    async def add_reply(self, conversation_id: str, message_id: str, *, resume: bool = False) -> Turn:
        """Open another reply, owned by this process, and show its branch.

        It answers `message_id`, or stands beside it where that is a reply; with `resume`, it begins with the text of
        that reply.

        Raises NotFoundError where there is no such message, or nothing was said before it.
        """
        return await self._database.change(conversation_id, _add_reply, conversation_id, message_id, resume)

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
        """Whether all of these messages are there still, and of people who allow models to learn from them."""
        owned = messages.join(conversations).join(people)
        for at in range(0, len(message_ids), _AT_ONCE):
            some = message_ids[at : at + _AT_ONCE]
            query = select(func.count()).select_from(owned).where(messages.c.id.in_(some), people.c.may_learn)
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
            await conversation_in(connection, conversation_id)
            await connection.run_sync(_message, conversation_id, message_id)
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

    async def pinned(self, leaf_id: str) -> Sequence[Message]:
        """The pinned messages of the branch that ends in `leaf_id`, the oldest first.

        Reads the branch back to the oldest pinned message of the conversation, and nothing where there is none.
        """
        return await self._database.query(_pinned, leaf_id)

    async def pinned_and_path(self, leaf_id: str, limit: int) -> tuple[Sequence[Message], Sequence[Message]]:
        """`pinned` and `path`, of the same moment."""
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


async def conversation_in(connection: AsyncConnection, conversation_id: str) -> Conversation:
    return await connection.run_sync(_found, conversation_id)


def _found(connection: Connection, conversation_id: str) -> Conversation:
    row = connection.execute(_CONVERSATION, {"conversation": conversation_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no conversation '{conversation_id}'; `chatbot conversations list` shows them.")
    return _conversation(row)


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


def _message(connection: Connection, conversation_id: str, message_id: str) -> Message:
    row = connection.execute(_SAID, {"message": message_id, "conversation": conversation_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no message '{message_id}' in the conversation '{conversation_id}'.")
    return Message(*row)


async def newest_leaf(connection: AsyncConnection, conversation_id: str, message_id: str) -> str:
    """The end of the branch through a message that goes at each step to what was said last."""
    values = {"conversation": conversation_id, "message": message_id}
    return str((await connection.execute(tree.NEWEST_LEAF, values)).scalar_one())


def _new(conversation_id: str, parent_id: str | None, role: Role, text: str, status: Status) -> Message:
    return Message(secrets.token_hex(8), conversation_id, parent_id, role, text, status, datetime.now(UTC))


def _row(message: Message) -> dict[str, Any]:
    """What is streaming belongs to this process."""
    fields = {column.name: getattr(message, column.name) for column in _MESSAGE_COLUMNS}
    owned = message.status == "streaming"
    return fields | {"owner": this_process() if owned else None, "heartbeat": message.created if owned else None}


def _add_turn(
    connection: Connection, conversation: str | Conversation, text: str, beside: str | None, message_id: str
) -> Turn:
    begins = isinstance(conversation, Conversation)
    if not isinstance(conversation, Conversation):
        conversation = _found(connection, conversation)
    parent_id = conversation.leaf_id
    if beside is not None:
        parent_id = _message(connection, conversation.id, beside).parent_id
    said = _new(conversation.id, parent_id, "user", text, "complete")
    if message_id:
        said = replace(said, id=message_id)
    return _open_reply(connection, conversation, said, "", said_now=True, begins=begins)


def _add_reply(connection: Connection, conversation_id: str, message_id: str, resume: bool) -> Turn:
    conversation = _found(connection, conversation_id)
    said = message = _message(connection, conversation_id, message_id)
    if message.role == "assistant":
        if message.parent_id is None:
            raise NotFoundError("There is nothing to answer: what this reply answered was deleted.")
        said = _message(connection, conversation_id, message.parent_id)
    return _open_reply(connection, conversation, said, message.text if resume else "")


def _open_reply(
    connection: Connection,
    conversation: Conversation,
    said: Message,
    text: str,
    *,
    said_now: bool = False,
    begins: bool = False,
) -> Turn:
    """Open a reply to what was said, with that where it is `said_now`, in a conversation that may have to `begin`."""
    reply = _new(conversation.id, said.id, "assistant", text, "streaming")
    shown = {"title": conversation.title or title_of(said.text), "updated": _next_moment(connection)}
    if begins:
        connection.execute(_BEGIN, _fields(conversation) | shown | {"leaf_id": reply.id})
    else:
        connection.execute(_SHOW, shown | {"leaf": reply.id, "conversation": conversation.id})
    connection.execute(_INSERT, [_row(message) for message in ([said, reply] if said_now else [reply])])
    return Turn(said, reply, conversation)


async def next_moment(connection: AsyncConnection) -> datetime:
    """Now; where the clock was put back, the moment after the newest that a conversation has: so the one last spoken
    in stays the first of the list."""
    return await connection.run_sync(_next_moment)


def _next_moment(connection: Connection) -> datetime:
    newest = connection.execute(_NEWEST).scalar()
    now = datetime.now(UTC)
    return now if newest is None or newest < now else newest + timedelta(microseconds=1)


def title_of(text: str) -> str:
    """The title that a conversation gets from what is said in it first."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
