"""Admins see and change which models answer, and retrain the chat model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from chatbot.errors import UserError
from chatbot.retrain.background import Background
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.versions import Version
from tests.telegram.world import ADMIN, Bot, Telegram


def candidate(folder: Path) -> None:
    """A trained version, as another process registers it."""

    async def add() -> None:
        async with open_store(Settings.load()) as store:
            await store.registry.add(Version("gpt", "mine", "1", str(folder), "c", "0"))

    asyncio.run(add())


def test_admins_see_and_choose_versions(telegram: Telegram, bot: Bot, tmp_path: Path) -> None:
    bot.start()
    candidate(tmp_path)
    for command, told in (
        ("/models", "gpt  mine@1: candidate"),
        ("/promote", "Say which version is to answer"),
        ("/promote nothing@1", "There is no model 'nothing@1'"),
        ("/promote mine@1", "mine@1 answers from the next message on."),
        ("/rollback pictures", "It is /rollback gpt"),
        ("/rollback", "answers again."),
        ("/rollback gpt", "There is no gpt version to roll back from"),
        ("/retrain aigc now", "It is /retrain gpt"),
        ("/retrain", "No retraining is at work"),
    ):
        telegram.say(command, ADMIN)
        telegram.told(told, ADMIN)
    telegram.say("/models")
    telegram.told("There is no command /models")


def test_the_end_of_a_retraining_is_told_though_the_bot_was_killed_meanwhile(telegram: Telegram, bot: Bot) -> None:
    bot.start()
    telegram.say("/retrain gpt", ADMIN)
    telegram.told("The retraining has begun.", ADMIN)
    telegram.say("/retrain", ADMIN)
    telegram.told("A retraining is at work.", ADMIN)
    bot.kill()
    bot.start()
    telegram.told("There is nothing to learn from", ADMIN, 120)
    telegram.say("/health", ADMIN)
    telegram.told("Up for", ADMIN)
    assert len([text for text in telegram.texts(ADMIN) if text.startswith("There is nothing to learn from")]) == 1


def test_it_runs_behind_everything_else_and_outlives_who_began_it(home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from chatbot.retrain.background import Background\n"
        "Background(Path(sys.argv[1])).start(['gpt'], '7')"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], check=True)
    background = Background(home)
    [process] = [
        one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-2:] == ["retrain", "gpt"]
    ]
    assert process.nice() == 19
    if sys.platform == "linux":
        session = Path(f"/proc/{process.pid}/autogroup")
        assert not session.exists() or session.read_text().endswith("nice 19\n")
    assert int(process.environ()["OMP_NUM_THREADS"]) >= 1
    assert background.at_work()
    assert background.news() is None
    with pytest.raises(UserError, match="Another retraining is at work"):
        background.start(["gpt"], "8")
    while background.at_work():
        time.sleep(0.1)
    asked, text = background.news() or ("", "")
    assert asked == "7"
    assert "There is nothing to learn from" in text
    background.told()
    assert background.news() is None
