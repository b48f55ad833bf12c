"""A Telegram of its own for every test, and a bot that is not started yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.telegram.world import Bot, Nursery, Telegram, nursery


@pytest.fixture(scope="session")
def server() -> Iterator[Telegram]:
    """One process for all tests, since starting one takes as long as a test."""
    telegram = Telegram()
    yield telegram
    telegram.close()


@pytest.fixture
def telegram(server: Telegram) -> Telegram:
    """As if nothing had ever been said."""
    server.control("clear")
    return server


@pytest.fixture(scope="session")
def bots() -> Iterator[Nursery]:
    with nursery() as opened:
        yield opened


@pytest.fixture
def bot(telegram: Telegram, tmp_path: Path, bots: Nursery) -> Iterator[Bot]:
    bot = Bot(telegram, tmp_path / "bot.log", bots)
    yield bot
    bot.kill()
