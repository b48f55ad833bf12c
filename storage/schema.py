"""The tables. A change here needs a migration in `storage/migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment; stored as UTC without a zone, since SQLite has none, and given back with one."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


# SQLite numbers rows by itself only for a column declared INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("title", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("model", Text, nullable=False, server_default=""),  # empty: the one in use
    Column("leaf_id", String(32)),  # the last message of the branch shown; messages point here, so no key back
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Index("conversations_by_update", "updated", "id"),
)

messages = Table(
    "messages",
    metadata,
    Column("seq", RowNumber, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("conversation_id", String(32), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), index=True),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("model", Text),
    Column("finish_reason", String(16)),
    Column("usage", JSON),
    Column("error", Text),
    Column("owner", Text),  # the process that writes this reply, while it does
    Column("heartbeat", UtcDateTime),
    Index("messages_by_conversation", "conversation_id", "seq"),
    Index("messages_by_status", "status"),
)

drafts = Table(
    "drafts",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("text", Text, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("parent", Text),
    Column("figures", JSON, nullable=False),
    Column("data_fingerprint", Text),
    Column("settings", JSON, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    UniqueConstraint("name", "version"),
)

activations = Table(
    "activations",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("version_id", RowNumber, ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    Column("action", String(16), nullable=False),
    Column("undone", Boolean, nullable=False),
    Column("created", UtcDateTime, nullable=False),
)
