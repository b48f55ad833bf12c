"""Bad days of the database: whatever happens, what was committed stays, and what cannot be is said."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import storage.conversations
from storage.conversations import Conversations
from storage.records import Conversation
from tests.conftest import Chatbot
from tests.kills import Ledger, kill_later, look, talker
from tests.scripted import listen, scripted_service


def test_killed_again_and_again_at_random_moments_nothing_committed_is_lost(home: Path) -> None:
    ledger = Ledger()
    with talker() as process:
        for seed in range(20):
            kill_later(process, ledger, seed)
    assert len(ledger.said) > 20
    look(ledger, home / "chatbot.db")


def test_two_processes_talk_in_one_conversation_and_no_message_is_lost(chatbot: Chatbot, home: Path) -> None:
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
        look(ledger, home / "chatbot.db")


async def test_a_database_that_is_locked_for_a_while_is_waited_for(home: Path) -> None:
    async with scripted_service(delay=0.001) as service:
        here = (await listen(service.send(None, "hello")))[0].conversation
        other = sqlite3.connect(home / "chatbot.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(listen(service.send(here, "are you there?")))
        await asyncio.sleep(10)
        assert not waiting.done()
        other.execute("COMMIT")
        _, finished = await waiting
        assert finished.text == "You said: are you there?"
        other.close()


async def test_the_order_within_a_conversation_does_not_hang_on_the_clock(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        back = timedelta()

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # the clock stands
            return datetime.now(UTC) - cls.back

    monkeypatch.setattr(storage.conversations, "datetime", Clock)
    first = await conversations.add_turn(Conversation.new(""), "one")
    here = first.said.conversation_id
    await conversations.end_reply(first.reply.id, "1", "complete")
    other = (await conversations.create("")).id
    Clock.back = timedelta(days=400)
    second = await conversations.add_reply(here, first.reply.id)
    assert [c.id for c in await conversations.list()] == [here, other]
    await conversations.end_reply(second.reply.id, "2", "complete")
    third = await conversations.add_turn(here, "two")
    assert [m.text for m in await conversations.messages(here)] == ["one", "1", "2", "two", ""]
    assert [m.text for m in await conversations.path(third.reply.id)] == ["one", "2", "two", ""]
    newest = (await conversations.create("")).id
    assert [c.id for c in await conversations.list()] == [newest, here, other]
    third = await conversations.add_turn(here, "three")
    assert [c.id for c in await conversations.list()] == [here, newest, other]
    again = await conversations.message(second.reply.id)
    assert (again.position, again.siblings) == (2, 2)
    assert await conversations.switch(here, first.said.id) == third.reply.id


if sys.platform == "linux":

    def test_on_a_full_disk_what_was_said_before_stays_and_the_rest_is_refused_in_a_sentence(tmp_path: Path) -> None:
        home = tmp_path / "small"
        home.mkdir()
        ask = f"CHATBOT_HOME={home} {sys.executable} -m chatbot ask --model fake"
        script = (
            f"mount -t tmpfs -o size=1m none {home} && {ask} before && head -c 600000 /dev/zero > {home}/ballast; "
            f"head -c 400000 /dev/zero | tr '\\0' x | {ask}; echo code $?; rm {home}/ballast; "
            f"{ask} --continue after; CHATBOT_HOME={home} {sys.executable} -m chatbot conversations export"
        )
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert "code 2" in done.stdout, done
        assert done.stderr.count("the disk is full") == 1, done.stderr
        assert "Traceback" not in done.stderr
        for kept in ("You said: before", "You said: after"):
            assert kept in done.stdout
