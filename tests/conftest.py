"""Fixtures of every test: a home of its own, and the real model as `make` fetched it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from chatbot.catalog import CATALOG
from chatbot.engines.gguf_to_hf import dequantized
from chatbot.engines.hf import converted_folder
from chatbot.engines.llamacpp_server import cores
from chatbot.fetch import is_fetched, model_file
from chatbot.settings import cache_folder
from storage.conversations import Conversations
from storage.database import Database
from tests.postgres import Server, running

REAL_CACHE = cache_folder()
Chatbot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; the fetched models are the person's own."""
    for name in [name for name in os.environ if name.startswith("CHATBOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHATBOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHATBOT_CACHE", str(REAL_CACHE))
    monkeypatch.setenv("CHATBOT_THREADS", str(cores()))  # so that no test waits for them to be measured
    monkeypatch.setenv("CHATBOT_SLOTS", "2")
    return tmp_path / "home"


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and slots as they are where nobody set them."""
    for name in ("CHATBOT_THREADS", "CHATBOT_SLOTS"):
        monkeypatch.delenv(name)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for all tests that ask for it."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Server) -> str:
    """The name of a database with all tables, to make copies of."""

    async def migrate() -> str:
        name = postgres.create()
        await (await Database.open(postgres.url(name))).close()
        return name

    return asyncio.run(migrate())


@pytest.fixture
def postgres_url(postgres: Server, migrated: str) -> Iterator[str]:
    """A database of the server, as a first start leaves it."""
    name = postgres.create(migrated)
    yield postgres.url(name)
    postgres.drop(name)


BACKENDS = ["sqlite", "postgresql"]


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, home: Path) -> str:
    """An empty database of each kind there is."""
    if request.param == "sqlite":
        return f"sqlite:///{home / 'chatbot.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def either_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The whole program on a database of each kind there is."""
    monkeypatch.setenv("CHATBOT_DATABASE_URL", database_url)
    return database_url


@pytest.fixture(params=BACKENDS)
def new_url(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """Where a database of each kind is to be made: no file, or one without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{home / 'deep' / 'folder' / 'chatbot.db'}"
    else:
        server: Server = request.getfixturevalue("postgres")
        name = server.create()
        yield server.url(name)
        server.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.open(database_url) as opened:
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
