"""Turns as they are opened: what a person says, and the reply to it. All inside a transaction."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from storage.errors import NotFoundError
from storage.processes import this_process
from storage.records import Conversation, Message, Role, Status, Turn, title_of
from storage.schema import conversations, messages

MESSAGE_COLUMNS = [messages.c[name] for name in Message.__dataclass_fields__ if name in messages.c]
# Every turn runs these: to make them anew would take nearly as long as to run them.
BEGIN = insert(conversations)
_INSERT = insert(messages)
_NEWEST = select(func.max(conversations.c.updated))
_CONVERSATION = select(conversations).where(conversations.c.id == bindparam("conversation"))
_SAID = select(*MESSAGE_COLUMNS).where(
    messages.c.id == bindparam("message"), messages.c.conversation_id == bindparam("conversation")
)
_SHOW = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(leaf_id=bindparam("leaf"), title=bindparam("title"), updated=bindparam("updated"))
)


def conversation_of(row: Row[Any]) -> Conversation:
    return Conversation(**{name: row._mapping[name] for name in Conversation.__dataclass_fields__})


def fields_of(conversation: Conversation) -> dict[str, Any]:
    return {name: getattr(conversation, name) for name in Conversation.__dataclass_fields__}


def conversation_in(connection: Connection, conversation_id: str) -> Conversation:
    row = connection.execute(_CONVERSATION, {"conversation": conversation_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no conversation '{conversation_id}'; `chatbot conversations list` shows them.")
    return conversation_of(row)


def message_in(connection: Connection, conversation_id: str, message_id: str) -> Message:
    row = connection.execute(_SAID, {"message": message_id, "conversation": conversation_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no message '{message_id}' in the conversation '{conversation_id}'.")
    return Message(*row)


def _new(conversation_id: str, parent_id: str | None, role: Role, text: str, status: Status) -> Message:
    return Message(secrets.token_hex(8), conversation_id, parent_id, role, text, status, datetime.now(UTC))


def _row(message: Message) -> dict[str, Any]:
    """What is streaming belongs to this process."""
    fields = {column.name: getattr(message, column.name) for column in MESSAGE_COLUMNS}
    owned = message.status == "streaming"
    return fields | {"owner": this_process() if owned else None, "heartbeat": message.created if owned else None}


def add_turn(
    connection: Connection, conversation: str | Conversation, text: str, beside: str | None, message_id: str
) -> Turn:
    begins = isinstance(conversation, Conversation)
    if not isinstance(conversation, Conversation):
        conversation = conversation_in(connection, conversation)
    parent_id = conversation.leaf_id
    if beside is not None:
        parent_id = message_in(connection, conversation.id, beside).parent_id
    said = _new(conversation.id, parent_id, "user", text, "complete")
    if message_id:
        said = replace(said, id=message_id)
    return _open_reply(connection, conversation, said, "", said_now=True, begins=begins)


def add_reply(connection: Connection, conversation_id: str, message_id: str, resume: bool) -> Turn:
    conversation = conversation_in(connection, conversation_id)
    said = message = message_in(connection, conversation_id, message_id)
    if message.role == "assistant":
        if message.parent_id is None:
            raise NotFoundError("There is nothing to answer: what this reply answered was deleted.")
        said = message_in(connection, conversation_id, message.parent_id)
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
    shown = {"title": conversation.title or title_of(said.text), "updated": next_moment(connection)}
    if begins:
        connection.execute(BEGIN, fields_of(conversation) | shown | {"leaf_id": reply.id})
    else:
        connection.execute(_SHOW, shown | {"leaf": reply.id, "conversation": conversation.id})
    connection.execute(_INSERT, [_row(message) for message in ([said, reply] if said_now else [reply])])
    return Turn(said, reply, conversation)


def next_moment(connection: Connection) -> datetime:
    """Now; where the clock was put back, the moment after the newest that a conversation has: so the one last spoken
    in stays the first of the list."""
    newest = connection.execute(_NEWEST).scalar()
    now = datetime.now(UTC)
    return now if newest is None or newest < now else newest + timedelta(microseconds=1)
