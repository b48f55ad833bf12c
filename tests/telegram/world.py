"""Telegram as tests see it: people who speak, the bot's process, and what came of both."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

from tests.telegram.emulator import TOKEN

PATIENCE_S = 30
ADA, BOB, ADMIN = 1001, 1002, 1000
GROUP = -5001

T = TypeVar("T")


def person(number: int, language: str = "en") -> dict[str, Any]:
    return {"id": number, "is_bot": False, "first_name": f"Person{number}", "language_code": language}


class Telegram:
    """An emulated server in a process of its own."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.telegram.emulator", *([str(port)] if port else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self._connection = HTTPConnection("127.0.0.1", self.port, timeout=60)

    def close(self) -> None:
        self._connection.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def control(self, what: str, **asked: Any) -> Any:
        self._connection.request("POST", f"/control/{what}", json.dumps(asked))
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return json.loads(body)

    # What people do

    def say(self, text: str, chat: int = ADA, sender: int = 0, **message: Any) -> int:
        """Say something; the number of the message."""
        who = person(sender or (chat if chat > 0 else ADA), message.pop("language", "en"))
        return int(self.control("say", chat=chat, message={"from": who, "text": text, **message})["message"])

    def send(self, chat: int = ADA, **message: Any) -> int:
        """Send something that is no text."""
        return int(self.control("say", chat=chat, message={"from": person(chat), **message})["message"])

    def edit(self, number: int, text: str, chat: int = ADA) -> None:
        self.control("say", chat=chat, message={"text": text}, edits=number)

    def press(self, message: dict[str, Any], label: str, sender: int = ADA) -> None:
        """Press the button that is labelled so."""
        rows = message["reply_markup"]["inline_keyboard"]
        [data] = [button["callback_data"] for row in rows for button in row if label in button["text"]]
        self.press_data(message, data, sender)

    def press_data(self, message: dict[str, Any], data: str, sender: int = ADA) -> None:
        chat = message["chat"]["id"]
        self.control("press", chat=chat, message=message["message_id"], sender=person(sender), data=data)

    def fault(self, method: str, do: str, **more: Any) -> None:
        self.control("fault", method=method, do=do, **more)

    # What came of it

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.control("look")
        return found

    def sent(self, chat: int | None = ADA) -> list[dict[str, Any]]:
        """Messages of the bot as they were sent, edits among them."""
        return [one for one in self.look()["sent"] if chat in (None, one["chat"]["id"])]

    def texts(self, chat: int | None = ADA) -> list[str]:
        return [one.get("text", "") for one in self.sent(chat)]

    def calls(self, method: str, chat: int | None = None) -> list[dict[str, Any]]:
        found = self.look()["calls"]
        return [one for one in found if one["method"] == method and chat in (None, one.get("chat_id"))]

    def wait(self, found: Callable[[], T | None], seconds: float = PATIENCE_S, every: float = 0.02) -> T:
        """What is found, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < end, f"never; the last that was sent: {self.sent(None)[-5:]}"
            time.sleep(every)
        return value

    def reply(self, to: str, chat: int = ADA, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The whole reply of the scripted model to something said."""
        return self.wait(
            lambda: next(
                (one for one in self.sent(chat) if is_whole(one) and f"You said: {to}" in one["text"]), None
            ),
            seconds,
        )

    def told(self, words: str, chat: int = ADA, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """A message of the bot with these words."""
        return self.wait(
            lambda: next((one for one in self.sent(chat) if words in one.get("text", "")), None), seconds
        )


def is_whole(message: dict[str, Any]) -> bool:
    """Whether it is a reply, and its end: buttons stand under that alone."""
    return "reply_markup" in message and "good:" in json.dumps(message["reply_markup"])


@dataclass
class Nursery:
    """Forks bots, see `tests.telegram.bots`."""

    process: subprocess.Popen[str]
    statuses: dict[int, int] = field(default_factory=dict)

    def fork(self, values: dict[str, str]) -> int:
        """The pid of a new one."""
        assert self.process.stdin is not None
        print(json.dumps(values), file=self.process.stdin, flush=True)
        while (heard := self._hear())[0] != "pid":
            continue
        return heard[1]

    def status(self, pid: int) -> int:
        """Wait until one is no more; how it ended, as `Popen.returncode`."""
        while pid not in self.statuses:
            assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "it goes on"
            self._hear()
        return os.waitstatus_to_exitcode(self.statuses[pid])

    def _hear(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        word, pid, *status = self.process.stdout.readline().split()
        if word == "ended":
            self.statuses[int(pid)] = int(status[0])
        return word, int(pid)


@contextmanager
def nursery() -> Iterator[Nursery]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.telegram.bots"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Nursery(process)
    finally:
        process.kill()
        process.communicate()


@dataclass
class Bot:
    """A `chatbot telegram` in a process of its own; what it needs of the environment stands in `settings`."""

    telegram: Telegram
    log: Path
    nursery: Nursery
    settings: dict[str, str] = field(default_factory=dict)
    model: str = "fake"
    pid: int = 0
    process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        ours = {
            "CHATBOT_TELEGRAM_TOKEN": TOKEN,
            "CHATBOT_TELEGRAM_API_URL": self.telegram.url,
            "CHATBOT_TELEGRAM_ALLOW": "*",
            "CHATBOT_TELEGRAM_ADMINS": str(ADMIN),
        }
        kept = {name: value for name, value in os.environ.items() if name.startswith("CHATBOT_")}
        return kept | ours | self.settings

    def start(self, level: str = "info") -> Bot:
        """Fork it, which is quicker."""
        self.pid = self.nursery.fork({"LOG": str(self.log), "LEVEL": level, **self.environment()})
        self.telegram.control("set", pid=self.pid)
        return self

    def run(self, level: str = "info") -> Bot:
        """Start it as a person would."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chatbot", "telegram", "--model", self.model, "--log", level],
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid
        self.telegram.control("set", pid=self.pid)
        return self

    def wait(self) -> int:
        """How it ended; minus the signal that killed it."""
        pid, self.pid = self.pid, 0
        if self.process is not None:
            return self.process.wait(PATIENCE_S)
        return self.nursery.status(pid)

    def send_signal(self, number: signal.Signals) -> None:
        if self.pid:
            os.kill(self.pid, number)

    def kill(self) -> int:
        self.send_signal(signal.SIGKILL)
        return self.wait() if self.pid else 0

    def end(self) -> int:
        """Ask it to end, as a service manager does."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def logged(self, what: str = "") -> list[dict[str, Any]]:
        """Lines of its log; those of `what` alone."""
        written = self.log.read_text() if self.log.exists() else ""
        lines = [line for line in written.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in map(json.loads, lines) if what in ("", line["what"])]
