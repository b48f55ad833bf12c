"""Conversations: trees of messages, and what was typed but not sent."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

import psutil
from sqlalchemy import Row, Select, bindparam, delete, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database
from storage.errors import NotFoundError
from storage.schema import conversations, drafts, messages

Role = Literal["user", "assistant"]
Status = Literal["streaming", "complete", "interrupted", "stopped", "failed"]
"""`streaming`: its writer is alive; `interrupted`: its writer died; `stopped`: the person stopped it."""

HEARTBEAT_LOST = timedelta(seconds=15)
TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Conversation:
    """`model` answers in it, NAME[@VERSION]; empty: the one in use."""

    id: str
    title: str
    system: str
    model: str
    leaf_id: str | None
    created: datetime
    updated: datetime

    @classmethod
    def new(cls, system: str, title: str = "", model: str = "") -> Conversation:
        """One that is stored nowhere yet."""
        now = datetime.now(UTC)
        return cls(secrets.token_hex(6), title, system, model, None, now, now)


@dataclass(frozen=True, slots=True)
class Message:
    """`usage` holds the token counts and timings of a reply; `error` says why one failed."""

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


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person said, the reply opened to it, and the conversation as it was before."""

    said: Message
    reply: Message
    conversation: Conversation


_MESSAGE_COLUMNS = [messages.c[name] for name in Message.__dataclass_fields__]


def _branch() -> Select[Any]:
    """The last `limit` messages of the branch that ends in `leaf`, the oldest first."""
    start = select(messages.c.id, messages.c.parent_id, literal(1).label("depth")).where(
        messages.c.id == bindparam("leaf")
    )
    branch = start.cte("branch", recursive=True)
    step = (
        select(messages.c.id, messages.c.parent_id, (branch.c.depth + 1).label("depth"))
        .join(branch, messages.c.id == branch.c.parent_id)
        .where(branch.c.depth < bindparam("limit"))
    )
    branch = branch.union_all(step)
    return select(*_MESSAGE_COLUMNS).join(branch, branch.c.id == messages.c.id).order_by(branch.c.depth.desc())


_BRANCH = _branch()  # built once: every turn asks it, and building it takes longer than answering it
_NO_LIMIT = 2**31 - 1
_SAVE = (
    update(messages)
    .where(messages.c.id == bindparam("reply"))
    .values(text=bindparam("text"), status="streaming", owner=bindparam("owner"), heartbeat=bindparam("heartbeat"))
)


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(**{name: row._mapping[name] for name in Conversation.__dataclass_fields__})


class Conversations:
    """What was said, by conversation. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, system: str, title: str = "", model: str = "") -> Conversation:
        conversation = Conversation.new(system, title, model)
        async with self._database.write() as connection:
            await connection.execute(insert(conversations).values(**asdict(conversation)))
        return conversation

    async def get(self, conversation_id: str) -> Conversation:
        """Raises NotFoundError where there is none of that id."""
        async with self._database.read() as connection:
            return await _get(connection, conversation_id)

    async def exists(self, conversation_id: str) -> bool:
        query = select(conversations.c.id).where(conversations.c.id == conversation_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def list(self, limit: int | None = None, offset: int = 0) -> Sequence[Conversation]:
        """Conversations, the one last spoken in first."""
        query = select(conversations).order_by(conversations.c.updated.desc(), conversations.c.id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.limit(limit).offset(offset))
            return [_conversation(row) for row in rows]

    async def rename(self, conversation_id: str, title: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, title=_title(title))

    async def set_system(self, conversation_id: str, system: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, system=system)

    async def set_model(self, conversation_id: str, model: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        await self._set(conversation_id, model=model)

    async def _set(self, conversation_id: str, **values: str) -> None:
        async with self._database.write() as connection:
            await _get(connection, conversation_id)
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation_id).values(**values)
            )

    async def delete(self, conversation_id: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        async with self._database.write() as connection:
            await _get(connection, conversation_id)
            await connection.execute(delete(drafts).where(drafts.c.key == conversation_id))
            await connection.execute(delete(conversations).where(conversations.c.id == conversation_id))

    async def add_turn(self, conversation: str | Conversation, text: str) -> Turn:
        """Append the person's message and an empty reply, owned by this process, to the branch shown.

        A conversation that is to begin with it (`Conversation.new`) is stored with it, or not at all.

        Raises NotFoundError where there is no such conversation.
        """
        async with self._database.write() as connection:
            if isinstance(conversation, Conversation):
                await connection.execute(insert(conversations).values(**asdict(conversation)))
            else:
                conversation = await _get(connection, conversation)
            conversation_id = conversation.id
            now = datetime.now(UTC)
            said = Message(secrets.token_hex(8), conversation_id, conversation.leaf_id, "user", text, "complete", now)
            reply = Message(secrets.token_hex(8), conversation_id, said.id, "assistant", "", "streaming", now)
            for message, extra in (
                (said, {}),
                (reply, {"owner": this_process(), "heartbeat": now}),
            ):
                fields = {name: getattr(message, name) for name in Message.__dataclass_fields__}
                await connection.execute(insert(messages).values(**fields, **extra))
            await connection.execute(
                update(conversations)
                .where(conversations.c.id == conversation_id)
                .values(leaf_id=reply.id, updated=now, title=conversation.title or _title(text))
            )
        return Turn(said, reply, conversation)

    async def save_reply(self, reply_id: str, text: str) -> None:
        """Keep what has come of a reply so far, and say that its writer lives."""
        async with self._database.write() as connection:
            await connection.execute(
                _SAVE, {"reply": reply_id, "text": text, "owner": this_process(), "heartbeat": datetime.now(UTC)}
            )

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
        async with self._database.write() as connection:
            await connection.execute(
                update(messages)
                .where(messages.c.id == reply_id)
                .values(
                    text=text,
                    status=status,
                    model=model,
                    finish_reason=finish_reason,
                    usage=usage,
                    error=error,
                    owner=None,
                    heartbeat=None,
                )
            )

    async def path(self, leaf_id: str | None, limit: int | None = None) -> Sequence[Message]:
        """The last `limit` messages of the branch that ends in `leaf_id`, the oldest first.

        Reads those rows alone, however long the branch is.
        """
        values = {"leaf": leaf_id, "limit": _NO_LIMIT if limit is None else limit}
        async with self._database.read() as connection:
            return [Message(*row) for row in await connection.execute(_BRANCH, values)]

    async def messages(self, conversation_id: str) -> Sequence[Message]:
        """Everything said in a conversation, on all its branches, in the order it was said."""
        query = select(*_MESSAGE_COLUMNS).where(messages.c.conversation_id == conversation_id)
        async with self._database.read() as connection:
            return [Message(*row) for row in await connection.execute(query.order_by(messages.c.seq))]

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
        gone = [row for row in rows if row.owner != this_process() and _is_gone(row.owner, row.heartbeat, now)]
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
        async with self._database.write() as connection:
            await connection.execute(delete(drafts).where(drafts.c.key == key))
            if text:
                await connection.execute(insert(drafts).values(key=key, text=text))


async def _get(connection: AsyncConnection, conversation_id: str) -> Conversation:
    row = (await connection.execute(select(conversations).where(conversations.c.id == conversation_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no conversation '{conversation_id}'; `chatbot conversations list` shows them.")
    return _conversation(row)


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


@cache
def _machine() -> str:
    """This machine, and within it the set of processes whose numbers mean the same to each other."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def this_process() -> str:
    """A name for this process that no other process has, on any machine, now or later."""
    pid = os.getpid()
    return f"{_machine()}|{pid}|{_started(pid)}"


@cache
def _started(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _is_gone(owner: str | None, heartbeat: datetime | None, now: datetime) -> bool:
    if owner is None or heartbeat is None:
        return True
    machine, pid, started = owner.rsplit("|", 2)
    if machine != _machine():
        return now - heartbeat > HEARTBEAT_LOST
    try:
        process = psutil.Process(int(pid))
        # A killed process that nobody has waited for yet is still listed, as a zombie.
        return bool(process.create_time() != float(started) or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
