"""From the command to the first painted screen, in a real terminal, 10,000 messages in the database."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from chatbot.settings import Settings
from chatbot.store import open_store
from tests.benchmarks.peers import peer
from tests.benchmarks.table import Row

RUNS = 7
CHATS, MESSAGES = 100, 100
_ESCAPE = re.compile(rb"\x1b(\[[0-9;?<=>]*[a-zA-Z]|[P_\]].*?(\x1b\\|\x07))", re.DOTALL)


def measure(folder: Path) -> list[Row]:
    elia = peer("elia", "elia-chat>=1.10")
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    asyncio.run(_fill_ours())
    _fill_elia(elia, environment, folder / "data" / "elia" / "elia.sqlite")
    commands = (
        ([sys.executable, "-m", "chatbot"], b"Write a message"),
        ([str(elia / "elia")], b"Enter your message"),
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    for run in range(RUNS + 1):  # the first of each warms the disk's cache
        for side, (command, text) in enumerate(commands):
            taken = _until_painted(command, text, environment)
            if run:
                seconds[side].append(taken)
    return [Row("first painted screen, 10,000 messages", "s", *map(median, seconds), "elia-chat", "ratio ≤ 0.6")]


async def _fill_ours() -> None:
    async with open_store(Settings.load()) as store:
        for chat in range(CHATS):
            conversation = (await store.conversations.create("", title=f"Chat {chat}")).id
            for number in range(MESSAGES // 2):
                reply = (await store.conversations.add_turn(conversation, f"question {number}")).reply
                await store.conversations.end_reply(reply.id, f"answer {number}", "complete")


def _fill_elia(elia: Path, environment: dict[str, str], database: Path) -> None:
    create = (
        "import asyncio; from elia_chat.database import models, database; asyncio.run(database.create_database())"
    )
    subprocess.run([str(elia / "python"), "-c", create], env=environment, check=True)
    with sqlite3.connect(database) as connection:
        for chat in range(1, CHATS + 1):
            connection.execute(
                "INSERT INTO chat (id, model, title, archived) VALUES (?, 'gpt-4o', ?, 0)", (chat, f"Chat {chat}")
            )
            connection.executemany(
                "INSERT INTO message (chat_id, role, content, meta, model) VALUES (?, ?, ?, '{}', 'gpt-4o')",
                [(chat, "assistant" if number % 2 else "user", f"message {number}") for number in range(MESSAGES)],
            )


def _until_painted(command: list[str], text: bytes, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(command[0], command, {**environment, "COLUMNS": "100", "LINES": "30"})
    seen = b""
    try:
        while text not in _ESCAPE.sub(b"", seen):
            seen += os.read(terminal, 65536)
        return time.perf_counter() - began
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
