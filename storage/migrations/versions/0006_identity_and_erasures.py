"""A name that a database has of its own, and what is still to be erased after something was forgotten."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    identity = op.create_table("identity", sa.Column("id", sa.String(32), primary_key=True))
    op.bulk_insert(identity, [{"id": secrets.token_hex(8)}])
    op.create_table(
        "erasures",
        sa.Column("id", row_number, primary_key=True, autoincrement=True),
        sa.Column("file", sa.String(32)),
        sa.Column("not_before", sa.DateTime),
    )
