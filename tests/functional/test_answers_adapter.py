"""The adapter that ships: whole, small, in both engines, and out of the packages that its card names."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chatbot.catalog import CATALOG, Bundled
from chatbot.errors import UserError
from chatbot.gpt.open_chats import build
from tests.conftest import Chatbot

MODEL = "smollm2-135m-answers@1"


def test_its_files_are_those_of_the_catalog_and_small() -> None:
    [entry] = [entry for entry in CATALOG if entry.ref == MODEL]
    assert isinstance(entry.source, Bundled)
    folder = entry.source.path.parent
    for name, sha256 in ((entry.file_name, entry.sha256), *entry.beside):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert entry.source.path.stat().st_size == entry.size
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15_000_000


@pytest.mark.usefixtures("model_path")
def test_both_engines_answer_with_it(chatbot: Chatbot, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("Who wrote Romeo and Juliet?", "--temperature", "0", "--max-tokens", "40")
    base = chatbot("ask", *asked).stdout
    used = chatbot("models", "use", MODEL)
    assert used.returncode == 0, used.stderr
    for engine in ("llamacpp", "hf"):
        monkeypatch.setenv("CHATBOT_ENGINE", engine)
        done = chatbot("ask", "--json", *asked, timeout=300)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["model"] == MODEL
        assert answer["finish_reason"] == "stop"
        assert "William Shakespeare" in answer["text"]
        assert answer["text"] != base.strip()


@pytest.mark.usefixtures("model_path")
def test_it_is_found_where_this_installation_has_it(chatbot: Chatbot, home: Path) -> None:
    """Also where another one chose it, which lay elsewhere."""
    assert chatbot("models", "use", MODEL).returncode == 0
    with closing(sqlite3.connect(home / "chatbot.db")) as connection:
        connection.execute("UPDATE versions SET folder = '/nowhere' WHERE name = 'smollm2-135m-answers'")
        connection.commit()
    done = chatbot("ask", "Hello!", "--max-tokens", "5")
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_written_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", None)
    with pytest.raises(UserError, match="there is no folder"):
        build(tmp_path / "nowhere" / "chats.jsonl")


def test_its_chats_come_out_of_the_packages(tmp_path: Path) -> None:
    assert build(tmp_path / "chats.jsonl") == 2325
    chats = [json.loads(line)["messages"] for line in (tmp_path / "chats.jsonl").read_text().splitlines()]
    for chat in chats:
        assert [message["role"] for message in chat] == ["user", "assistant"] * (len(chat) // 2)
        assert all(message["content"] for message in chat)
    assert {len(chat) // 2 for chat in chats} == {1, 2, 3}
    questions = [chat[0]["content"] for chat in chats]
    assert any(question.startswith("Tell me a joke") for question in questions), "small talk"
    assert sum("square" in question for question in questions) > 10, "tasks"
    text = " ".join(message["content"] for chat in chats for message in chat).lower()
    assert "<noinput>" not in text
