"""Conversations with their tree of messages, drafts, and the versions of models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("system", sa.Text, nullable=False),
        sa.Column("leaf_id", sa.String(32)),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
    )
    op.create_index("conversations_by_update", "conversations", ["updated", "id"])
    op.create_table(
        "messages",
        sa.Column("seq", row_number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column(
            "conversation_id",
            sa.String(32),
            sa.ForeignKey("conversations.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("parent_id", sa.String(32), sa.ForeignKey("messages.id", ondelete="CASCADE")),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("finish_reason", sa.String(16)),
        sa.Column("usage", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("heartbeat", sa.DateTime),
    )
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])
    op.create_index("messages_by_conversation", "messages", ["conversation_id", "seq"])
    op.create_index("messages_by_status", "messages", ["status"])
    op.create_table(
        "drafts",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("id", row_number, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("checksum", sa.Text, nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("figures", sa.JSON, nullable=False),
        sa.Column("data_fingerprint", sa.Text),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.UniqueConstraint("name", "version"),
    )
    op.create_table(
        "activations",
        sa.Column("id", row_number, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("version_id", row_number, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("undone", sa.Boolean, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("activations", "versions", "drafts", "messages", "conversations"):
        op.drop_table(table)
