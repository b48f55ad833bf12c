"""Files that belong to messages: a row each, and the bytes in a folder under the row's id."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import insert, select

from storage.database import Database
from storage.erasure import erase_unless_kept, keep_files
from storage.errors import NotFoundError, StorageError
from storage.schema import attachments, erasures, identity, messages


@dataclass(frozen=True, slots=True)
class Attachment:
    """`size` in bytes; `details` is what its kind knows more: width and height, the prompt it was made from."""

    id: str
    message_id: str
    name: str
    media_type: str
    sha256: str
    size: int
    details: dict[str, Any] = field(default_factory=dict)


class Attachments:
    """Files of messages.

    Args:
        database: holds the rows.
        folder: holds the files of this database and of no other, named by `folder_of`.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    @staticmethod
    async def folder_of(database: Database, folder: Path) -> Path:
        """The part of `folder` that belongs to a database: several may share a home, and the ids of what was carried
        from one to the other."""
        async with database.read() as connection:
            return folder / str((await connection.execute(select(identity.c.id))).scalar_one())

    async def add(
        self, message_id: str, name: str, media_type: str, data: bytes, details: dict[str, Any] | None = None
    ) -> Attachment:
        """Keep a file for a message. Raises StorageError where there is no such message, or the disk is full."""
        attachment = Attachment(
            secrets.token_hex(8),
            message_id,
            name,
            media_type,
            hashlib.sha256(data).hexdigest(),
            len(data),
            details or {},
        )
        await erase_unless_kept(self._database, [attachment.id])
        await self.write(attachment.id, data)
        try:
            async with self._database.write() as connection:
                known = select(messages.c.id).where(messages.c.id == message_id)
                if (await connection.execute(known)).first() is None:
                    raise NotFoundError(f"There is no message '{message_id}'.")
                await connection.execute(insert(attachments).values(**asdict(attachment)))
                await keep_files(connection, [attachment.id])
        except BaseException:
            self.delete_files([attachment.id])
            raise
        return attachment

    async def write(self, attachment_id: str, data: bytes) -> None:
        """Put the bytes of an attachment on the disk, whole or not at all. Raises StorageError."""
        try:
            await asyncio.to_thread(_write, self._folder / attachment_id, data)
        except OSError as error:
            raise StorageError(f"Cannot write to {self._folder}: {error.strerror}.") from None

    async def read(self, attachment_id: str) -> bytes:
        """Raises NotFoundError where its file is gone."""
        try:
            return await asyncio.to_thread(self.path(attachment_id).read_bytes)
        except OSError as error:
            raise NotFoundError(f"Cannot read the attachment '{attachment_id}': {error.strerror}.") from None

    def path(self, attachment_id: str) -> Path:
        """Where its bytes lie: in the folder of the database, or where all of them lay before each had its own."""
        own, earlier = self._folder / attachment_id, self._folder.parent / attachment_id
        return earlier if earlier.is_file() and not own.is_file() else own

    async def of_messages(self, message_ids: Iterable[str]) -> Sequence[Attachment]:
        """The attachments of some messages, a page of them at most."""
        return await self._select(attachments.c.message_id.in_(list(message_ids)))

    async def of_conversation(self, conversation_id: str) -> Sequence[Attachment]:
        said = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
        return await self._select(attachments.c.message_id.in_(said))

    async def _select(self, where: Any) -> Sequence[Attachment]:
        columns = (attachments.c[name] for name in Attachment.__dataclass_fields__)
        query = select(*columns).where(where).order_by(attachments.c.message_id, attachments.c.id)
        async with self._database.read() as connection:
            return [Attachment(*row) for row in await connection.execute(query)]

    async def delete(self, attachment_id: str) -> None:
        """Raises NotFoundError where there is none of that id."""
        async with self._database.write() as connection:
            gone = await connection.execute(delete_rows(attachments).where(attachments.c.id == attachment_id))
            if not gone.rowcount:
                raise NotFoundError(f"There is no attachment '{attachment_id}'.")
            await connection.execute(insert(erasures).values(file=attachment_id))
        await asyncio.to_thread(self.delete_files, [attachment_id])
        async with self._database.write() as connection:
            await keep_files(connection, [attachment_id])

    def delete_files(self, attachment_ids: Iterable[str]) -> None:
        """Delete the files of attachments that have no row any more."""
        for attachment_id in attachment_ids:
            self.path(attachment_id).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
