"""Models of the hub, from a hub emulated on loopback, by the commands a person gives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.registry import summary
from storage.versions import Version
from tests.conftest import Chatbot
from tests.hub import COMMIT, Hub, emulated
from tests.tiny_models import tiny_gguf, tiny_transformers

GGUF = "someone/Smol-GGUF"
TINY = "someone/tiny"
NESTED = "someone/nested"
BOTH = "someone/both"
SPLIT = "someone/split"
PART = "tiny-00001-of-00003.gguf"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hub")
    gguf, tiny, pickled, several, nested, both, split, torn = (
        folder / name for name in ("gguf", "tiny", "pickled", "several", "nested", "both", "split", "torn")
    )
    for made in (gguf, pickled, several, split, torn):
        made.mkdir()
    (gguf / "smol.Q4_1.gguf").symlink_to(model_path)
    tiny_transformers(tiny, says="never stops")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04 pickled code")
    (several / "a.gguf").write_bytes(b"GGUF")
    (several / "b.gguf").write_bytes(b"GGUF")
    (nested / "q").mkdir(parents=True)
    tiny_gguf(nested / "q" / "tiny.gguf", says="never stops")
    tiny_transformers(both, says="never stops")
    tiny_gguf(both / "tiny.GGUF", says="never stops")
    (both / "onnx").mkdir()
    for name in ("consolidated.safetensors", "onnx/model.safetensors"):
        (both / name).write_bytes(b"the same once more")
    tiny_gguf(split / "tiny.gguf", says="never stops", tensors_a_file=5)
    assert len(list(split.iterdir())) == 3
    (torn / PART).write_bytes((split / PART).read_bytes())
    return {
        NESTED: nested,
        GGUF: gguf,
        TINY: tiny,
        BOTH: both,
        SPLIT: split,
        "someone/torn": torn,
        "someone/pickled": pickled,
        "someone/several": several,
    }


@pytest.fixture
def hub(repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with emulated(repositories) as opened:
        monkeypatch.setenv("HF_ENDPOINT", opened.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "cache"))
        yield opened


def test_a_gguf_of_the_hub_says_what_it_is_and_answers(chatbot: Chatbot, hub: Hub) -> None:
    hub.gguf = {"context_length": 8192, "architecture": "llama", "total": 134_000_000}
    used = chatbot("models", "use", GGUF)
    assert used.returncode == 0, used.stderr
    for said in ("98 MB", "8,192 tokens", "apache-2.0", "it fits this machine", "Fetching"):
        assert said in used.stderr
    listed = json.loads(chatbot("models", "list", "--json").stdout)
    version = next(row for row in listed if row["name"] == f"{GGUF}:smol.Q4_1.gguf")
    assert version["state"] == "current"
    assert version["settings"]["revision"] == COMMIT
    asked = chatbot("ask", "Say hello.", "--json", "--max-tokens", "8")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["model"] == f"{GGUF}:smol.Q4_1.gguf@{COMMIT[:12]}"


def test_a_folder_of_safetensors_answers_through_transformers(chatbot: Chatbot, hub: Hub) -> None:
    asked = chatbot("ask", "hello", "--model", TINY, "--json", "--max-tokens", "5")
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["model"] == f"{TINY}@{COMMIT[:12]}"


def test_a_file_in_a_subfolder_answers_and_goes_on_answering_without_the_hub(
    chatbot: Chatbot, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = chatbot("ask", "hello", "--model", NESTED, "--max-tokens", "4")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == "aaaa\n"
    assert "licence" in asked.stderr  # what it is, before it is fetched
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = chatbot("ask", "hello", "--model", NESTED, "--max-tokens", "4")
    assert (again.returncode, again.stdout) == (0, "aaaa\n"), again.stderr


@pytest.mark.parametrize("named", [SPLIT, f"{SPLIT}:tiny-00002-of-00003.gguf"])
def test_a_model_in_several_files_is_fetched_whole_and_answers(chatbot: Chatbot, hub: Hub, named: str) -> None:
    asked = chatbot("ask", "hello", "--model", named, "--max-tokens", "4", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["text"] == "aaaa"
    assert json.loads(asked.stdout)["model"] == f"{SPLIT}:{PART}@{COMMIT[:12]}"


def test_a_repository_is_another_model_than_a_file_of_it(chatbot: Chatbot, hub: Hub) -> None:
    file = chatbot("models", "pull", f"{BOTH}:tiny.GGUF")
    assert file.returncode == 0, file.stderr
    folder = chatbot("models", "pull", BOTH)
    assert folder.returncode == 0, folder.stderr
    assert Path(file.stdout.strip()).name == "tiny.GGUF"
    kept = {path.name for path in Path(folder.stdout.strip()).iterdir() if path.is_file()}
    assert kept == {path.name for path in hub.repos[TINY].iterdir()}, "and no weights once more"


def test_every_file_is_the_one_of_the_commit_that_was_looked_up(chatbot: Chatbot, hub: Hub) -> None:
    pulled = chatbot("models", "pull", TINY)
    assert pulled.returncode == 0, pulled.stderr
    for file in hub.repos[TINY].iterdir():
        assert Path(pulled.stdout.strip(), file.name).read_bytes() == file.read_bytes()
    asked = {path.split("/")[4] for _, path, _ in hub.seen if "/resolve/" in path}
    assert asked == {COMMIT}


@pytest.mark.parametrize("name", ["../../../../evil.gguf", "/evil.gguf"])
def test_a_file_that_would_lie_outside_of_its_folder_is_refused(
    chatbot: Chatbot, hub: Hub, tmp_path: Path, name: str
) -> None:
    hub.outside = [name if name.startswith("..") else f"{tmp_path}{name}"]
    pulled = chatbot("models", "pull", "someone/pickled")
    assert not list(tmp_path.rglob("evil.gguf*"))
    assert pulled.returncode == 2
    assert "would lie outside of its folder" in pulled.stderr


def test_memory_is_told_as_the_engine_will_need_it(tmp_path: Path) -> None:
    needed = []
    for stored in ("float32", "bfloat16"):
        (tmp_path / "config.json").write_text(json.dumps({"dtype": stored}))
        files = {"model.safetensors": {"size": 10**10, "sha256": None}}
        settings = {"engine": "hf", "repo": TINY, "files": files}
        version = Version("gpt", TINY, "1", folder=str(tmp_path), checksum="", code_version="", settings=settings)
        said = re.search(r"needs about ([\d.]+) GB", summary(version))
        assert said is not None
        needed.append(float(said[1]))
    assert needed[1] == 2 * needed[0], "twice as many numbers fit into as much"


def test_a_killed_download_is_gone_on_with(chatbot: Chatbot, hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_s = 40e6
    pulling = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "models", "pull", GGUF], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while _fetched(tmp_path) < 15_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(pulling.pid, signal.SIGKILL)
    pulling.wait()
    assert not list((tmp_path / "cache").rglob("smol.Q4_1.gguf")), "it is not there before it is whole"
    hub.bytes_per_s = 1e12
    again = chatbot("models", "pull", GGUF)
    assert again.returncode == 0, again.stderr
    assert any(int(given.removeprefix("bytes=").split("-")[0]) > 10_000_000 for given in hub.ranges())
    assert Path(again.stdout.strip()).stat().st_size == 98_362_432


def test_only_the_parent_killed_leaves_no_download_running(hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_s = 10e6
    pulling = subprocess.Popen(
        [sys.executable, "-m", "chatbot", "models", "pull", GGUF], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while _fetched(tmp_path) < 5_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pulling.kill()
    pulling.wait()
    time.sleep(2)
    before = _fetched(tmp_path)
    time.sleep(1)
    assert _fetched(tmp_path) == before


def test_what_is_not_what_the_hub_promised_is_not_kept(chatbot: Chatbot, hub: Hub, tmp_path: Path) -> None:
    hub.damage = True
    pulled = chatbot("models", "pull", GGUF)
    assert pulled.returncode == 2
    assert "SHA-256 differs" in pulled.stderr
    assert not list((tmp_path / "cache").rglob("smol.Q4_1.gguf"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("someone/nothing", "no model someone/nothing"),
        (f"{GGUF}@v9", "no such revision"),
        (f"{GGUF}:other.gguf", "has no file other.gguf; it has smol.Q4_1.gguf"),
        ("someone/pickled", "can hold code, and are refused"),
        ("someone/torn", "tiny-00002-of-00003.gguf is missing"),
        ("someone/several", "say which: someone/several:a.gguf, someone/several:b.gguf"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(chatbot: Chatbot, hub: Hub, name: str, sentence: str) -> None:
    pulled = chatbot("models", "pull", name)
    assert pulled.returncode == 2
    assert sentence in pulled.stderr
    assert "Traceback" not in pulled.stderr


def test_without_a_network_the_hub_cannot_be_reached(chatbot: Chatbot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    pulled = chatbot("models", "pull", GGUF)
    assert pulled.returncode == 2
    assert "cannot be reached" in pulled.stderr


def _fetched(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.partial"))
