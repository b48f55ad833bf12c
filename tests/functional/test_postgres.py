"""The program on a PostgreSQL server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy.engine import make_url

from chatbot.events import Failed, Started, TextDelta
from chatbot.settings import Settings
from chatbot.store import open_store
from chatbot.transfer.keep import keep
from chatbot.transfer.read import parse
from tests.conftest import Chatbot
from tests.functional.test_bad_input import one_sentence
from tests.functional.test_transfer import CONVERSATIONS, written
from tests.functional.test_tui import Driven
from tests.kills import Ledger, kill_later, look_at_rows, talker
from tests.postgres import Server
from tests.scripted import scripted_service


@pytest.fixture(autouse=True)
def url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CHATBOT_DATABASE_URL", postgres_url)
    return postgres_url


def test_questions_and_their_list_are_on_the_server(chatbot: Chatbot, url: str, postgres: Server) -> None:
    assert chatbot("ask", "--model", "fake", "Is this kept?").stdout == "You said: Is this kept?\n"
    assert chatbot("ask", "--model", "fake", "--continue", "And this?").returncode == 0
    [listed] = json.loads(chatbot("conversations", "list", "--json").stdout)
    assert listed["title"] == "Is this kept?"
    shown = json.loads(chatbot("conversations", "show", listed["id"], "--json").stdout)
    assert [said["role"] for said in shown["messages"]] == ["user", "assistant"] * 2
    assert postgres.sql("SELECT count(*) FROM messages", database=make_url(url).database or "") == "4"


def test_a_first_start_makes_the_tables_whoever_is_first(
    chatbot: Chatbot, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.create()
    monkeypatch.setenv("CHATBOT_DATABASE_URL", postgres.url(name))
    command = [sys.executable, "-m", "chatbot", "ask", "--model", "fake", "side by side"]
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate() for process in running] == [(b"You said: side by side\n", b"")] * 3
    assert len(json.loads(chatbot("conversations", "list", "--json").stdout)) == 3
    postgres.drop(name)


def test_killed_at_random_moments_nothing_committed_is_lost_and_cut_replies_say_so(
    chatbot: Chatbot, url: str, postgres: Server
) -> None:
    ledger, database = Ledger(), make_url(url).database or ""
    with talker() as process:
        for seed in range(8):
            kill_later(process, ledger, seed)
    assert len(ledger.said) > 8
    look_at_rows(ledger, lambda query: postgres.rows(query, database))
    assert chatbot("conversations", "list").returncode == 0
    statuses = {status for [status] in postgres.rows("SELECT status FROM messages", database)}
    assert "interrupted" in statuses
    assert "streaming" not in statuses


def test_two_processes_talk_in_one_conversation_and_no_message_is_lost(
    chatbot: Chatbot, url: str, postgres: Server
) -> None:
    here = json.loads(chatbot("ask", "first", "--model", "fake", "--json").stdout)["conversation"]
    ledgers = [Ledger(), Ledger()]
    with talker() as one, talker() as other, ThreadPoolExecutor() as threads:
        talking = [
            threads.submit(kill_later, process, ledgers[number], number, here, 12)
            for number, process in enumerate((one, other))
        ]
        for talk in talking:
            talk.result()
    for ledger in ledgers:
        assert len(ledger.said) > 3  # asking again says what was said before
        look_at_rows(ledger, lambda query: postgres.rows(query, make_url(url).database or ""))


@settings(max_examples=15, deadline=None)
@given(CONVERSATIONS)
def test_conversations_move_from_a_file_to_the_server_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, postgres: Server, migrated: str, content: tuple[dict[str, Any], ...]
) -> None:
    home, name = tmp_path_factory.mktemp("home"), postgres.create(migrated)

    async def move() -> tuple[str, str]:
        data = json.dumps({"format": "chatbot", "version": 1, "conversations": content}).encode()
        written_by = []
        for database_url in ("", postgres.url(name)):
            where = Settings.load(home=home / (database_url and "other"), database_url=database_url)
            async with open_store(where) as store:
                for shape in parse(data):
                    await keep(store, shape)
                written_by.append(await written(store))
                data = written_by[-1].encode()
        return written_by[0], written_by[1]

    on_disk, on_server = asyncio.run(move())
    postgres.drop(name)
    assert on_server == on_disk


async def test_a_server_that_restarts_in_the_middle_of_a_reply_costs_no_word(postgres: Server) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    async with scripted_service(lambda messages: words, delay=0.02) as service:
        seen, reply = 0, ""
        async for event in service.send(None, "Tell me."):
            match event:
                case Started():
                    reply = event.reply
                case TextDelta():
                    seen += 1
                    if seen == 10:
                        await asyncio.to_thread(postgres.stop)
                    if seen == 40:
                        await asyncio.to_thread(postgres.start)
                case _:
                    assert not isinstance(event, Failed), event
        stored = (await service.conversations.path(reply))[-1]
        assert (stored.text, stored.status) == (words, "complete")


async def test_the_terminal_chat_talks_and_finds_it_again() -> None:
    async with Driven().run() as driven:
        await driven.say_and_wait("hello there")
    async with Driven().run() as again:
        await again.until(lambda: again.replies() == ["You said: hello there"])


def test_a_server_that_is_down_is_said_and_no_password_shown(
    chatbot: Chatbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_DATABASE_URL", "postgresql://ada:wr0ng@localhost:1/db")
    said = one_sentence(chatbot("ask", "--model", "fake", "hi"))
    shown = chatbot("config", "show")
    diagnosed = chatbot("doctor")
    assert "cannot be reached" in said
    assert 'database_url = "postgresql://ada:***@localhost:1/db"' in shown.stdout
    assert "cannot be reached" in diagnosed.stdout
    assert "wr0ng" not in said + shown.stdout + shown.stderr + diagnosed.stdout + diagnosed.stderr


def test_the_url_may_stand_in_the_settings_file(
    chatbot: Chatbot, url: str, home: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHATBOT_DATABASE_URL")
    home.mkdir()
    (home / "config.toml").write_text(f'database_url = "{url}"')
    assert chatbot("ask", "--model", "fake", "hi").returncode == 0
    assert postgres.sql("SELECT count(*) FROM conversations", database=make_url(url).database or "") == "1"
    assert not (home / "chatbot.db").exists()


def test_without_its_library_it_says_what_to_install(url: str) -> None:
    code = "import sys; sys.modules['asyncpg'] = None\nfrom chatbot.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "conversations", "list"], capture_output=True, text=True)
    assert "pip install asyncpg" in one_sentence(done)
