"""Models learn from what people say only where they allowed it; nobody has yet."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("people", sa.Column("may_learn", sa.Boolean, nullable=False, server_default=sa.false()))
