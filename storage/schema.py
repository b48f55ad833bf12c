"""The tables. A change here needs a migration in `storage/migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    literal_column,
)

from storage.columns import JSON, Text


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

people = Table(
    "people",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("platform", String(32), nullable=False),
    Column("external_id", String(128), nullable=False),  # what the platform calls the person
    Column("name", Text, nullable=False),
    Column("may_learn", Boolean, nullable=False, server_default=false()),  # models, from what this person says
    UniqueConstraint("platform", "external_id"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("person_id", String(32), ForeignKey("people.id", ondelete="CASCADE")),
    Column("title", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("model", Text, nullable=False, server_default=""),  # empty: the one in use
    Column("leaf_id", String(32)),  # the last message of the branch shown; messages point here, so no key back
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Index("conversations_by_update", "updated", "id"),
    Index("conversations_by_person", "person_id", "updated", "id"),
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
    Column("pinned", Boolean, nullable=False, server_default=false()),  # is always sent, word for word
    Column("owner", Text),  # the process that writes this reply, while it does
    Column("heartbeat", UtcDateTime),
    Index("messages_by_conversation", "conversation_id", "seq"),
    Index("messages_by_status", "status"),
    Index("messages_by_parent", "conversation_id", "parent_id", "seq"),
    Index(
        "messages_pinned",
        "conversation_id",
        "seq",
        sqlite_where=literal_column("pinned"),
        postgresql_where=literal_column("pinned"),
    ),
)

feedback = Table(
    "feedback",
    metadata,
    Column("message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("person_id", String(32), ForeignKey("people.id", ondelete="CASCADE"), primary_key=True),
    Column("value", Integer, nullable=False),  # 1 or -1
    Column("note", Text, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Index("feedback_by_person", "person_id"),
)

attachments = Table(
    "attachments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("details", JSON, nullable=False),
    Index("attachments_by_message", "message_id"),
)

summaries = Table(
    "summaries",
    metadata,
    # The last message it covers: all before it on its branch are in it too.
    Column("message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("conversation_id", String(32), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Index("summaries_by_conversation", "conversation_id"),
)

identity = Table(
    "identity",
    metadata,
    Column("id", String(32), primary_key=True),  # one row: no other database has the same
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("file", String(32)),  # of an attachment; null: something was forgotten, of which traces may be left
    Column("not_before", UtcDateTime),  # null: at once; later, where the file is just being written
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

inbox = Table(
    "inbox",
    metadata,
    Column("seq", RowNumber, primary_key=True, autoincrement=True),
    Column("source", String(64), nullable=False),  # the account on a platform that it came to
    Column("update_id", BigInteger, nullable=False),  # the platform's own number of it
    Column("lane", String(128), nullable=False),  # what is answered in order
    Column("sender", String(128), nullable=False),  # what the platform calls who sent it
    Column("payload", Text, nullable=False),  # as it came; of what is done, nothing but its number stays
    Column("state", String(16), nullable=False),  # waiting, sending: its answer may be out, done
    Column("turned_away", Boolean, nullable=False),  # came when too many waited already
    Column("stopped", Boolean, nullable=False),  # its answer is no longer wanted
    Column("handed", Boolean, nullable=False),  # stored by another process than the one it belongs to
    Column("reply_id", String(32)),  # the reply that answers it, once that has begun
    Column("parts", Integer, nullable=False),  # how many messages of its answer are out
    Column("shown_id", BigInteger),  # the platform's message that shows the answer while it comes
    Column("attempts", Integer, nullable=False),  # processes that began it and died
    Column("owner", Text),  # the process that answers
    Column("heartbeat", UtcDateTime),
    Column("arrived", UtcDateTime, nullable=False),
    UniqueConstraint("source", "update_id"),
    Index(
        "inbox_open",
        "source",
        "lane",
        "update_id",
        sqlite_where=literal_column("state <> 'done'"),
        postgresql_where=literal_column("state <> 'done'"),
    ),
)

chats = Table(
    "chats",
    metadata,
    Column("chat", String(128), primary_key=True),  # its platform's name and own
    Column("conversation_id", String(32), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Index("chats_by_conversation", "conversation_id"),
)

authors = Table(
    "authors",  # who said a message, where a conversation has several people
    metadata,
    Column("message_id", String(32), ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("person_id", String(32), ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    Index("authors_by_person", "person_id"),
)

access = Table(
    "access",
    metadata,
    Column("platform", String(32), primary_key=True),
    Column("external_id", String(128), primary_key=True),  # of a person or a group
    Column("allowed", Boolean),  # null: as the settings say; so with what may be used a day
    Column("messages", Integer),
    Column("tokens", Integer),
    Column("pictures", Integer),
)

usage = Table(
    "usage",
    metadata,
    Column("account", String(64), primary_key=True),  # a pseudonym: it stays when a person is forgotten
    Column("day", Date, primary_key=True),
    Column("messages", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("pictures", Integer, nullable=False),
)
