"""Databases of every earlier version, with what was said in them, brought up to date on every kind of database."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from storage.access import Access
from storage.attachments import Attachments
from storage.chats import Chats
from storage.conversations import Conversations
from storage.database import MIGRATIONS, Database, backend_of
from storage.erasure import is_unfinished
from storage.inbox import Inbox
from storage.people import LOCAL, People
from storage.schema import metadata
from storage.search import Query, Search
from storage.versions import Versions

REVISIONS = sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))

# What a person of that version could have stored, and later ones on top of it.
DATA = {
    "0001": (
        "INSERT INTO conversations (id, title, system, leaf_id, created, updated) VALUES"
        " ('c1', 'Über 世界', 'Be kind.', 'm2', '2024-02-29 10:00:00.000001', '2024-02-29 10:00:01'),"
        " ('c2', '', '', NULL, '2024-02-29 11:00:00', '2024-02-29 11:00:00')",
        "INSERT INTO messages (id, conversation_id, parent_id, role, text, status, created, usage) VALUES"
        " ('m1', 'c1', NULL, 'user', 'Hallo 世界 😀', 'complete', '2024-02-29 10:00:00', NULL),"
        " ('m2', 'c1', 'm1', 'assistant', 'Ja?', 'interrupted', '2024-02-29 10:00:01', '{\"prompt_tokens\": 3}')",
        "INSERT INTO drafts (key, text) VALUES ('c1', 'half a thought')",
        "INSERT INTO versions"
        " (kind, name, version, folder, checksum, figures, settings, code_version, state, created) VALUES"
        " ('gpt', 'mine', '1', '/x', 'abc', '{\"loss\": 1.5}', '{}', '0.1', 'current', '2024-02-29 09:00:00')",
        "INSERT INTO activations (kind, version_id, action, undone, created)"
        " VALUES ('gpt', 1, 'use', FALSE, '2024-02-29 09:00:00')",
    ),
    "0002": ("UPDATE conversations SET model = 'mine@1' WHERE id = 'c1'",),
    "0003": (
        "INSERT INTO feedback (message_id, person_id, value, note, created, updated)"
        " VALUES ('m2', 'local', 1, 'gut', '2024-02-29 12:00:00', '2024-02-29 12:00:00')",
    ),
    "0004": (
        "INSERT INTO inbox (source, update_id, lane, sender, payload, state, turned_away, stopped, handed, parts,"
        " attempts, arrived) VALUES"
        " ('telegram:1', 7, '5', '5', '{}', 'waiting', FALSE, FALSE, FALSE, 0, 0, '2024-02-29 13:00:00')",
        "INSERT INTO chats (chat, conversation_id) VALUES ('telegram:1:5', 'c1')",
        "INSERT INTO access (platform, external_id, allowed) VALUES ('telegram', '5', TRUE)",
    ),
    "0005": ("UPDATE people SET may_learn = TRUE WHERE id = 'local'",),
    "0006": ("INSERT INTO erasures (file, not_before) VALUES ('f1', NULL), ('f2', '2024-02-29 12:00:00')",),
}


def upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def make(url: str, revision: str) -> None:
    """A database as the program of that revision left it."""
    backend = backend_of(url)
    async with backend.migrating() as connection:
        for step in REVISIONS[: REVISIONS.index(revision) + 1]:
            await connection.run_sync(upgrade, step)
            for statement in DATA.get(step, ()):
                await connection.execute(text(statement.replace(":", r"\:")))
    await backend.close()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_what_an_earlier_version_stored_is_there_after_the_update(new_url: str, revision: str) -> None:
    await make(new_url, revision)
    async with await Database.open(new_url) as database:
        conversations, versions = Conversations(database), Versions(database)
        assert [c.id for c in await conversations.list()] == ["c2", "c1"]
        one = await conversations.get("c1")
        assert (one.title, one.system, one.created.microsecond) == ("Über 世界", "Be kind.", 1)
        assert one.model == ("mine@1" if revision >= "0002" else "")
        said, reply = await conversations.path(one.leaf_id)
        assert (said.text, reply.text, reply.status) == ("Hallo 世界 😀", "Ja?", "interrupted")
        assert reply.usage == {"prompt_tokens": 3}
        assert reply.rating == (1 if revision >= "0003" else 0)
        assert one.person_id == LOCAL
        assert await People(database).who_allow_learning() == ({LOCAL} if revision >= "0005" else set())
        for words in ("世界", "HALLO", "ja"):
            assert len(await Search(database).find(Query(words))) == 1
        assert await conversations.draft("c1") == "half a thought"
        current = await versions.current("gpt")
        assert current is not None
        assert (current.ref, current.figures) == ("mine@1", {"loss": 1.5})
        entries, _ = await Inbox(database, "telegram:1", 5).look()
        assert [entry.update_id for entry in entries] == ([7] if revision >= "0004" else [])
        assert await Chats(database).conversation("telegram:1:5") == ("c1" if revision >= "0004" else None)
        allowed = (await Access(database, "telegram").rule("5")).allowed
        assert allowed is (True if revision >= "0004" else None)
        # It goes on from there, rows numbered by the database included.
        turn = await conversations.add_turn("c1", "and now?")
        assert turn.said.parent_id == "m2"
        await versions.activate("mine", "1", "use")
        assert len(await versions.history("gpt")) == 2
        assert await is_unfinished(database) == (revision >= "0006")
        own = await Attachments.folder_of(database, Path("attachments"))
    async with await Database.open(new_url) as again:
        assert own == await Attachments.folder_of(again, Path("attachments")) != Path("attachments")


async def test_the_migrations_make_what_the_schema_says(database: Database) -> None:
    def ours(name: str | None, kind: str, parents: object) -> bool:
        return (kind != "table" or name in metadata.tables) and name != "messages_grams"  # but for the search index

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        # SQLAlchemy does not read ON DELETE where SQLite has a reference in the column's declaration.
        return [
            found
            for found in compare_metadata(context, metadata)
            if not (found[0] in ("add_fk", "remove_fk") and found[1].column_keys == ["person_id"])
        ]

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        if connection.dialect.name == "sqlite":
            [reference] = (await connection.exec_driver_sql("PRAGMA foreign_key_list(conversations)")).mappings()
            assert (reference["table"], reference["from"]) == ("people", "person_id")
            assert reference["on_delete"] == "CASCADE"
