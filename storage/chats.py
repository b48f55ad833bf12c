"""Which conversation a chat of a platform shows, and who of several people said what."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select

from storage.database import Database
from storage.schema import authors, chats

_SHOWN = select(chats.c.conversation_id).where(chats.c.chat == bindparam("shown_in"))
_HIDE = delete(chats).where(chats.c.chat == bindparam("shown_in"))
_SHOW = insert(chats)


class Chats:
    """Chats, topics of groups among them; a conversation that is deleted is shown in none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def conversation(self, chat: str) -> str | None:
        """The conversation that `chat` shows; None where the next message begins one."""
        return await self._database.query(_shown, chat)

    async def show(self, chat: str, conversation_id: str | None) -> None:
        """Let `chat` show another conversation, or none."""
        await self._database.change(chat, _show, chat, conversation_id)

    async def said_by(self, message_id: str, person_id: str) -> None:
        """Remember who said a message of a conversation that belongs to several: it is forgotten with that person."""
        async with self._database.write(message_id) as connection:
            await connection.execute(delete(authors).where(authors.c.message_id == message_id))
            await connection.execute(insert(authors).values(message_id=message_id, person_id=person_id))


def _shown(connection: Connection, chat: str) -> str | None:
    return connection.execute(_SHOWN, {"shown_in": chat}).scalar()


def _show(connection: Connection, chat: str, conversation_id: str | None) -> None:
    connection.execute(_HIDE, {"shown_in": chat})
    if conversation_id is not None:
        connection.execute(_SHOW, {"chat": chat, "conversation_id": conversation_id})
