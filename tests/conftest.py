"""Fixtures of every test: a home of its own, and the real model as `make` fetched it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chatbot.catalog import CATALOG
from chatbot.engines.gguf_to_hf import dequantized
from chatbot.engines.hf import converted_folder
from chatbot.fetch import is_fetched, model_file
from chatbot.settings import cache_folder
from storage.conversations import Conversations
from storage.database import Database

REAL_CACHE = cache_folder()
Chatbot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the fetched models are the person's own."""
    for name in [name for name in os.environ if name.startswith("CHATBOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHATBOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHATBOT_CACHE", str(REAL_CACHE))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The default model's file. A test that needs it fails where it is not there."""
    entry = CATALOG[0]
    assert is_fetched(entry, REAL_CACHE / "models"), f"`chatbot models pull {entry.name}` first"
    return model_file(entry, REAL_CACHE / "models")


@pytest.fixture(scope="session")
def hf_folder(model_path: Path) -> Path:
    """The default model as transformers reads it, dequantised once into the cache."""
    return dequantized(model_path, converted_folder(REAL_CACHE, CATALOG[0].sha256))


@pytest.fixture
async def database(home: Path) -> AsyncIterator[Database]:
    async with await Database.open(f"sqlite+aiosqlite:///{home / 'chatbot.db'}") as opened:
        yield opened


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def chatbot() -> Chatbot:
    """Runs the command as a person would; text goes to its standard input."""

    def run(*arguments: str, stdin: str | bytes = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "chatbot", *arguments],
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
        )

    return run
