"""A server that was begun early is the one that answers, or none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from chatbot.engines.base import ChatMessage
from chatbot.engines.head_start import HeadStart
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.load import Models
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.database import Database
from storage.versions import Versions
from tests.training.chats import small_model


def servers() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "llamacpp_server" in " ".join(child.cmdline())]


async def load(model_path: Path, head_start: HeadStart, context: int = 512) -> LlamaCppResponder:
    return await LlamaCppResponder.load(model_path, "m@1", context_length=context, start=head_start.start)


async def test_what_was_begun_early_is_what_answers(model_path: Path, tmp_path: Path) -> None:
    first = HeadStart(tmp_path / "last.json")
    await first.begin()
    assert servers() == []
    await (await load(model_path, first)).close()
    second = HeadStart(tmp_path / "last.json")
    await second.begin()
    begun = servers()
    assert len(begun) == 1
    engine = await load(model_path, second)
    assert servers() == begun
    assert await engine.count_tokens([ChatMessage("user", "hello")]) > 1
    await engine.close()
    assert servers() == []


async def test_another_model_or_another_length_is_loaded_anew(model_path: Path, tmp_path: Path) -> None:
    await (await load(model_path, HeadStart(tmp_path / "last.json"))).close()
    head_start = HeadStart(tmp_path / "last.json")
    await head_start.begin()
    begun = servers()
    engine = await load(model_path, head_start, context=1024)
    assert len(servers()) == 1
    assert servers() != begun
    await engine.close()


async def test_a_server_that_ended_meanwhile_is_started_anew(model_path: Path, tmp_path: Path) -> None:
    await (await load(model_path, HeadStart(tmp_path / "last.json"))).close()
    head_start = HeadStart(tmp_path / "last.json")
    await head_start.begin()
    (begun,) = servers()
    psutil.Process(begun).kill()
    while psutil.pid_exists(begun):
        await asyncio.sleep(0.01)
    engine = await load(model_path, head_start)
    assert await engine.count_tokens([ChatMessage("user", "hello")]) > 1
    await engine.close()


async def test_what_nobody_wanted_is_ended(model_path: Path, tmp_path: Path) -> None:
    await (await load(model_path, HeadStart(tmp_path / "last.json"))).close()
    head_start = HeadStart(tmp_path / "last.json")
    await head_start.begin()
    await head_start.close()
    assert servers() == []


@pytest.mark.parametrize("noted", ["", "[1]", "{}", json.dumps({"path": "/nowhere.gguf"}), "\udcff"])
async def test_a_note_that_is_none_begins_nothing(tmp_path: Path, noted: str) -> None:
    (tmp_path / "last.json").write_text(noted, encoding="utf-8", errors="surrogateescape")
    head_start = HeadStart(tmp_path / "last.json")
    await head_start.begin()
    assert servers() == []


async def test_where_another_engine_answers_nothing_is_begun_again(
    model_path: Path, tmp_path: Path, database: Database
) -> None:
    await (await load(model_path, HeadStart(tmp_path / "last.json"))).close()
    head_start = HeadStart(tmp_path / "last.json")
    await head_start.begin()
    settings = Settings.load()
    models = Models(Registry(Versions(database), settings), settings, head_start=head_start)
    await models.load(lambda progress: None, str(small_model(tmp_path / "small")))
    assert servers() == []
    assert not (tmp_path / "last.json").exists()
    await models.close()
