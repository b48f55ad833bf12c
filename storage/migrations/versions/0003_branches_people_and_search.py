"""People, siblings and pins of messages, feedback, attachments, summaries, and the search index."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    people = op.create_table(
        "people",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("platform", sa.String(32), nullable=False),
        sa.Column("external_id", sa.String(128), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.UniqueConstraint("platform", "external_id"),
    )
    op.bulk_insert(people, [{"id": "local", "platform": "local", "external_id": "", "name": ""}])
    # By hand: SQLite takes a reference only in the column's own declaration, and alembic writes it apart.
    op.execute("ALTER TABLE conversations ADD COLUMN person_id VARCHAR(32) REFERENCES people (id) ON DELETE CASCADE")
    op.execute("UPDATE conversations SET person_id = 'local'")
    op.create_index("conversations_by_person", "conversations", ["person_id", "updated", "id"])

    op.add_column("messages", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("messages_by_parent", "messages", ["conversation_id", "parent_id", "seq"])
    op.create_index(
        "messages_pinned",
        "messages",
        ["conversation_id", "seq"],
        sqlite_where=sa.text("pinned"),
        postgresql_where=sa.text("pinned"),
    )
    op.create_table(
        "feedback",
        sa.Column("message_id", sa.String(32), sa.ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("person_id", sa.String(32), sa.ForeignKey("people.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
    )
    op.create_index("feedback_by_person", "feedback", ["person_id"])
    op.create_table(
        "attachments",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("message_id", sa.String(32), sa.ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("attachments_by_message", "attachments", ["message_id"])
    op.create_table(
        "summaries",
        sa.Column("message_id", sa.String(32), sa.ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
        sa.Column(
            "conversation_id", sa.String(32), sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    op.create_index("summaries_by_conversation", "summaries", ["conversation_id"])
    if op.get_bind().dialect.name == "sqlite":
        for statement in SQLITE_SEARCH:
            op.execute(statement)
    else:
        op.execute(POSTGRES_GRAMS.format(collation=_collation()))
        op.execute(
            "CREATE INDEX messages_grams ON messages USING gin (chatbot_grams(text)) WHERE status <> 'streaming'"
        )


def _collation() -> str:
    """By whose rules text is made lower-case: the database's own, but where it was made for ASCII."""
    known = sa.text("SELECT collname FROM pg_collation WHERE collname = ANY (:names)")
    names = ["default", "pg_c_utf8", "und-x-icu", "C.utf8", "en_US.utf8"]
    present = set(op.get_bind().execute(known.bindparams(names=names)).scalars())
    for name in names:
        lower = sa.text(f"SELECT lower('ÄЖ' COLLATE pg_catalog.\"{name}\")")
        if name in present and op.get_bind().execute(lower).scalar() == "äж":
            return name
    return "default"


# Numbers, since code points are the same in every version of PostgreSQL and the values of its hashes need not be.
POSTGRES_GRAMS = """
    CREATE FUNCTION chatbot_grams(value text) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
        SELECT coalesce(array_agg(gram), '{{}}') FROM (
            SELECT DISTINCT unnest(CASE
                WHEN b IS NULL OR b = ' ' THEN ARRAY[x]
                WHEN c IS NULL OR c = ' ' THEN ARRAY[x, (x << 21) | y]
                ELSE ARRAY[x, (x << 21) | y, (x << 42) | (y << 21) | z] END) AS gram
            FROM (
                SELECT b, c, ascii(a)::bigint AS x, ascii(b)::bigint AS y, ascii(c)::bigint AS z
                FROM string_to_array(
                        translate(lower(value COLLATE pg_catalog."{collation}"), E'\\n\\t', '  '), NULL
                    ) AS letters,
                    unnest(letters, letters[2:], letters[3:]) AS run(a, b, c)
                WHERE a <> ' ') AS runs
        ) AS grams
    $$"""


SQLITE_SEARCH = (
    # Two marks behind the text make its last characters begin a trigram too: so all one- and two-character words
    # are found as beginnings of trigrams. A reply is indexed when it has ended, not five times a second.
    """CREATE VIEW messages_searched AS
        SELECT seq, text || char(1, 1) AS text FROM messages WHERE status <> 'streaming'""",
    """CREATE VIRTUAL TABLE messages_index USING fts5
        (text, content = 'messages_searched', content_rowid = 'seq', tokenize = 'trigram')""",
    "CREATE VIRTUAL TABLE messages_trigrams USING fts5vocab (messages_index, instance)",
    """CREATE TRIGGER messages_index_add AFTER INSERT ON messages WHEN new.status <> 'streaming' BEGIN
        INSERT INTO messages_index (rowid, text) VALUES (new.seq, new.text || char(1, 1)); END""",
    """CREATE TRIGGER messages_index_remove AFTER DELETE ON messages WHEN old.status <> 'streaming' BEGIN
        INSERT INTO messages_index (messages_index, rowid, text)
        VALUES ('delete', old.seq, old.text || char(1, 1)); END""",
    """CREATE TRIGGER messages_index_change AFTER UPDATE OF text, status ON messages
        WHEN old.status <> 'streaming' OR new.status <> 'streaming' BEGIN
        INSERT INTO messages_index (messages_index, rowid, text)
        SELECT 'delete', old.seq, old.text || char(1, 1) WHERE old.status <> 'streaming';
        INSERT INTO messages_index (rowid, text)
        SELECT new.seq, new.text || char(1, 1) WHERE new.status <> 'streaming'; END""",
    "INSERT INTO messages_index (messages_index) VALUES ('rebuild')",
)
