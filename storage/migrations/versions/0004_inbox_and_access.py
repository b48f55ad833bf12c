"""What comes from chat platforms: the inbox, which conversation a chat shows, who may, and who used how much."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("seq", row_number, primary_key=True, autoincrement=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("update_id", sa.BigInteger, nullable=False),
        sa.Column("lane", sa.String(128), nullable=False),
        sa.Column("sender", sa.String(128), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("turned_away", sa.Boolean, nullable=False),
        sa.Column("stopped", sa.Boolean, nullable=False),
        sa.Column("handed", sa.Boolean, nullable=False),
        sa.Column("reply_id", sa.String(32)),
        sa.Column("parts", sa.Integer, nullable=False),
        sa.Column("shown_id", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("heartbeat", sa.DateTime),
        sa.Column("arrived", sa.DateTime, nullable=False),
        sa.UniqueConstraint("source", "update_id"),
    )
    op.create_index(
        "inbox_open",
        "inbox",
        ["source", "lane", "update_id"],
        sqlite_where=sa.text("state <> 'done'"),
        postgresql_where=sa.text("state <> 'done'"),
    )
    op.create_table(
        "chats",
        sa.Column("chat", sa.String(128), primary_key=True),
        sa.Column(
            "conversation_id", sa.String(32), sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False
        ),
    )
    op.create_index("chats_by_conversation", "chats", ["conversation_id"])
    op.create_table(
        "authors",
        sa.Column("message_id", sa.String(32), sa.ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("people.id", ondelete="CASCADE"), nullable=False),
    )
    op.create_index("authors_by_person", "authors", ["person_id"])
    op.create_table(
        "access",
        sa.Column("platform", sa.String(32), primary_key=True),
        sa.Column("external_id", sa.String(128), primary_key=True),
        sa.Column("allowed", sa.Boolean),
        sa.Column("messages", sa.Integer),
        sa.Column("tokens", sa.Integer),
        sa.Column("pictures", sa.Integer),
    )
    op.create_table(
        "usage",
        sa.Column("account", sa.String(64), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
    )
