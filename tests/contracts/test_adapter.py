"""What every adapter keeps to. A new one joins by a line in `driver`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.telegram.conftest import bots, server  # noqa: F401 - fixtures
from tests.telegram.world import Bot, Nursery, Telegram


class Driver(Protocol):
    """Someone at the other end of an adapter."""

    def say(self, text: str) -> None: ...

    def hear(self) -> str:
        """The next answer, whole, as plain text."""
        ...

    def restart(self) -> None:
        """End the process as a service manager does, and start another."""
        ...


class OverPipes:
    """Plain lines."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatbot", "lines", "--model", "fake"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        print(escaped, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        return line.removeprefix("! ").replace("\\n", "\n").replace("\\\\", "\\")

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self.process.terminate()
        _, errors = self.process.communicate()
        assert errors == ""
        assert self.process.returncode in (0, 143)


class OverHttp:
    """The Telegram bot."""

    def __init__(self, telegram: Telegram, bot: Bot) -> None:
        self._telegram = telegram
        self._bot = bot.start()
        self._heard = 0

    def say(self, text: str) -> None:
        self._telegram.say(text)

    def hear(self) -> str:
        found = self._telegram.wait(lambda: self._telegram.sent()[self._heard :])
        self._heard += 1
        return str(found[0].get("text", ""))

    def restart(self) -> None:
        assert self._bot.end() == 143
        self._bot.start()

    def close(self) -> None:
        self._bot.end()


@pytest.fixture(params=["lines", "telegram"])
def driver(request: pytest.FixtureRequest, server: Telegram, bots: Nursery, tmp_path: Path) -> Iterator[Driver]:  # noqa: F811 - a fixture of that name
    if request.param == "lines":
        opened: OverPipes | OverHttp = OverPipes()
    else:
        server.control("clear")
        opened = OverHttp(server, Bot(server, tmp_path / "log", bots))
    yield opened
    opened.close()


def test_what_is_said_is_answered_in_order(driver: Driver) -> None:
    for number in range(3):
        driver.say(f"number {number}")
    assert [driver.hear() for _ in range(3)] == [f"You said: number {number}" for number in range(3)]


def test_lines_and_odd_characters_come_through(driver: Driver) -> None:
    driver.say("日本語 😀 two\nlines \\n and a back\\slash")
    assert "日本語 😀 two\nlines" in driver.hear()


def test_commands_of_the_registry_answer(driver: Driver) -> None:
    driver.say("/help")
    assert "/retry" in driver.hear()
    driver.say("/nonesuch")
    assert "There is no command /nonesuch" in driver.hear()


def test_the_conversation_goes_on_until_a_new_one_begins(driver: Driver) -> None:
    driver.say("first")
    driver.hear()
    driver.say("/edit second")
    assert driver.hear() == "You said: second"
    driver.say("/previous")
    assert driver.hear() == "You said: first"
    driver.say("/new")
    assert "new conversation" in driver.hear()
    driver.say("/retry")
    assert "the conversation is empty" in driver.hear()


def test_another_process_goes_on_with_the_same_conversation(driver: Driver) -> None:
    driver.say("remember")
    driver.hear()
    driver.restart()
    driver.say("/retry")
    assert driver.hear() == "You said: remember"


def test_stop_passes_what_waits_and_keeps_what_came(driver: Driver) -> None:
    driver.say("count to 1000 every 0.02 s")
    driver.say("/new")  # or the model would be given both, and count after all
    driver.say("next")
    heard: list[str] = []
    while "Stopped." not in heard:
        driver.say("/stop")
        heard.append(driver.hear())
    while "You said: next" not in heard:
        heard.append(driver.hear())
    told = {"Stopped.", "No reply is coming.", "Your next message begins a new conversation.", "You said: next"}
    [counted] = [line for line in heard if line not in told]
    assert "You said: count to 1000".startswith(counted) or counted.startswith("You said: count to 1000")
    assert not counted.endswith("1000")


def test_what_destroys_asks_first(driver: Driver) -> None:
    driver.say("a thing")
    driver.hear()
    for command in ("/delete", "/forget"):
        driver.say(command)
        assert "This cannot be undone." in driver.hear()
    driver.say("/retry")
    assert driver.hear() == "You said: a thing"


def test_a_picture_is_answered_with_a_line_too(driver: Driver) -> None:
    driver.say("/imagine --style flat a red fox")
    heard = driver.hear()
    assert "a red fox" in (heard or driver.hear())
