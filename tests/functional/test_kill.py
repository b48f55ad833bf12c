"""Whatever is killed, and whenever: nothing said is lost, on the real model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import pytest

from chatbot.chat import ChatService
from chatbot.events import Failed, Started
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.conftest import Chatbot
from tests.processes import engines_of

pytestmark = pytest.mark.usefixtures("model_path")


@contextmanager
def long_reply() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A `chatbot ask` in the middle of a long reply, and what it has printed so far."""
    # One that is known to be long, and word by word: what a small model repeats would be guessed ahead in a moment.
    question = ("Tell me a very long story about the sea.", "--max-tokens", "900", "--seed", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "ask", *question],
        env=os.environ | {"CHATBOT_SPECULATE": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a run in the background ignores it
    )
    try:
        assert process.stdout is not None
        printed = b""
        while len(printed) < 200:
            printed += os.read(process.stdout.fileno(), 1000)
        yield process, printed.decode(errors="ignore")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def only_conversation(chatbot: Chatbot) -> list[dict[str, Any]]:
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    assert len(listed) == 1
    shown = json.loads(chatbot("conversations", "show", listed[0]["id"], "--json").stdout)
    messages: list[dict[str, Any]] = shown["messages"]
    return messages


def servers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return engines_of(process.pid)


def test_after_kill_9_the_cut_reply_stands_there_as_interrupted(chatbot: Chatbot) -> None:
    with long_reply() as (process, printed):
        time.sleep(0.25)  # what came more than a fifth of a second ago is saved
        servers = servers_of(process)
        assert servers
        process.kill()
        process.wait()
        said, reply = only_conversation(chatbot)
        assert said["text"] == "Tell me a very long story about the sea."
        assert reply["status"] == "interrupted"
        assert reply["text"].startswith(printed[:150])
        psutil.wait_procs(servers, timeout=10)
        assert not any(server.is_running() for server in servers)
    done = chatbot("ask", "--continue", "Go on.", "--max-tokens", "5")
    assert done.returncode == 0
    assert len(only_conversation(chatbot)) == 4


def test_another_process_starting_up_leaves_a_living_reply_alone(chatbot: Chatbot) -> None:
    with long_reply() as (process, printed):
        assert only_conversation(chatbot)[1]["status"] == "streaming"
        assert chatbot("ask", "Hello", "--model", "fake").returncode == 0
        process.communicate()
        assert process.returncode == 0
    listed = json.loads(chatbot("conversations", "list", "--json").stdout)
    reply = json.loads(chatbot("conversations", "show", listed[1]["id"], "--json").stdout)["messages"][1]
    assert reply["status"] == "complete"
    assert reply["text"].startswith(printed[:150])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_reply_and_keeps_what_came(chatbot: Chatbot, sent: signal.Signals, code: int) -> None:
    with long_reply() as (process, printed):
        servers = servers_of(process)
        process.send_signal(sent)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == code
        reply = only_conversation(chatbot)[1]
        assert reply["status"] == "stopped"
        assert reply["text"].strip() == (printed + rest.decode()).strip()
        assert not any(server.is_running() for server in servers)


def test_a_reader_that_leaves_stops_the_reply_quietly(chatbot: Chatbot) -> None:
    with long_reply() as (process, printed):
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert process.wait(timeout=20) == 0
        reply = only_conversation(chatbot)[1]
        assert reply["status"] == "stopped"
        assert reply["text"].startswith(printed[:150])


def test_killed_while_the_model_loads_the_message_is_there(chatbot: Chatbot) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "ask", "Remember this."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"Loading" in process.stderr.readline()
    process.kill()
    process.communicate()
    said, reply = only_conversation(chatbot)
    assert (said["text"], said["status"]) == ("Remember this.", "complete")
    assert (reply["text"], reply["status"]) == ("", "interrupted")


def test_a_model_process_that_dies_is_started_again() -> None:
    async def scenario() -> None:
        async with open_service(Settings.load(max_tokens=5)) as service:
            conversation = await _say(service, None, "hello")
            [child] = engines_of(os.getpid())
            child.kill()
            child.wait()
            await asyncio.sleep(0.1)
            await _say(service, conversation, "and again")

    asyncio.run(scenario())


async def _say(service: ChatService, conversation: str | None, text: str) -> str | None:
    async for event in service.send(conversation, text):
        assert not isinstance(event, Failed), event
        if isinstance(event, Started):
            conversation = event.conversation
    return conversation
