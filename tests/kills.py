"""Kills `tests.faults` at random moments, and looks at what is left: `python -m tests.kills 200` does it so often."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Ledger:
    """What the killed said that they had committed."""

    said: dict[str, str] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def note(self, line: str) -> None:
        what, message, rest = line.rstrip("\n").split(" ", 2)
        if what == "said":
            self.said[message] = rest
        else:
            self.kept[message] = int(rest)


@contextmanager
def talker() -> Iterator[subprocess.Popen[str]]:
    """Forks processes that talk; their home is that of the moment."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill_later(
    talker: subprocess.Popen[str], ledger: Ledger, seed: int, conversation: str = "", messages: int = 1
) -> None:
    """Let one talk until it has said so many messages, and for a moment more; then kill -9 it."""
    assert talker.stdin is not None
    assert talker.stdout is not None
    talker.stdin.write(f"{seed} {conversation}\n")
    pid = int(talker.stdout.readline().split()[1])
    while messages:
        line = talker.stdout.readline()
        messages -= line.startswith("said")
        ledger.note(line)
    time.sleep(random.Random(seed).uniform(0, 0.25))
    os.kill(pid, signal.SIGKILL)
    while (line := talker.stdout.readline()) != "ended\n":
        ledger.note(line)


def look(ledger: Ledger, path: Path) -> None:
    """Everything that was committed is there, the trees are whole, and the file is sound."""
    connection = sqlite3.connect(path)
    [sound] = connection.execute("PRAGMA integrity_check").fetchone()
    assert sound == "ok"
    connection.execute("INSERT INTO messages_index (messages_index, rank) VALUES ('integrity-check', 1)")
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    look_at_rows(ledger, lambda query: connection.execute(query).fetchall())
    connection.close()


def look_at_rows(ledger: Ledger, ask: Callable[[str], Sequence[Sequence[object]]]) -> None:
    """Everything that was committed is there, and the trees are whole, as a database of any kind answers."""
    texts = {str(message): str(text) for message, text in ask("SELECT id, text FROM messages")}
    for message, text in ledger.said.items():
        assert texts[message] == text
    for message, length in ledger.kept.items():
        assert len(texts[message]) == length
    orphans = """SELECT m.id FROM messages AS m LEFT JOIN messages AS p ON p.id = m.parent_id
        WHERE m.parent_id IS NOT NULL
        AND (p.id IS NULL OR p.conversation_id <> m.conversation_id OR p.seq >= m.seq)"""
    assert ask(orphans) == []
    lost = """SELECT id FROM conversations WHERE leaf_id IS NULL
        OR leaf_id NOT IN (SELECT id FROM messages WHERE conversation_id = conversations.id)"""
    assert ask(lost) == []


def main(times: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["CHATBOT_HOME"] = home
        ledger = Ledger()
        with talker() as process:
            for seed in range(times):
                kill_later(process, ledger, seed)
        look(ledger, Path(home, "chatbot.db"))
    print(f"killed {times} times: {len(ledger.said)} messages and {len(ledger.kept)} whole replies, all there")


if __name__ == "__main__":
    main(int(sys.argv[1]))
