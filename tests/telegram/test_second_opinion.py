"""The same bot against a Bot API server that others wrote, npm's telegram-api-mock-server, for what that supports."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.telegram.emulator import TOKEN
from tests.telegram.world import ADA, Bot, Telegram, person

SERVER = "telegram-api-mock-server@0.1.10"
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), SERVER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "node_modules" / "telegram-api-mock-server" / "dist" / "index.js"


@pytest.fixture
def other(library: Path) -> Iterator[tuple[str, Ask]]:
    """Its URL, and what asks it for something."""
    driver = Path(__file__).with_name("second_opinion.mjs")
    process = subprocess.Popen(
        ["node", str(driver), str(library), TOKEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(**asked: Any) -> Any:
        print(json.dumps(asked), file=stdin, flush=True)
        return json.loads(stdout.readline())

    address = json.loads(stdout.readline())
    yield f"http://{address['host']}:{address['port']}", ask
    process.kill()
    process.communicate()


def test_another_server_sees_messages_answered(other: tuple[str, Ask], bot: Bot, telegram: Telegram) -> None:
    url, ask = other
    bot.settings["CHATBOT_TELEGRAM_API_URL"] = url
    bot.start()
    chat = {"id": ADA, "type": "private"}
    for number, text in enumerate(("hello **there**", "/help", "and good bye, count to 3 after 1 s"), 1):
        ask(inject={"message": {"message_id": number, "date": 0, "chat": chat, "from": person(ADA), "text": text}})

    def sent() -> list[str]:
        return [json.dumps(call, ensure_ascii=False) for call in ask() if call["method"] == "sendMessage"]

    telegram.wait(lambda: len(sent()) >= 3)
    first, second, third = sent()
    assert "You said: hello there" in first
    assert "bold" in first
    assert "/retry" in second
    assert "You said: and good bye" in third
    assert {call["method"] for call in ask()} >= {"sendMessage", "sendChatAction"}
    bot.end()
    bot.start()
    ask(inject={"message": {"message_id": 4, "date": 0, "chat": chat, "from": person(ADA), "text": "again"}})
    telegram.wait(lambda: len(sent()) >= 4)
    assert "You said: again" in sent()[3]
