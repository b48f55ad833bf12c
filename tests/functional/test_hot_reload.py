"""A running chat takes what was promoted between two turns, and never what cannot speak."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatbot import __version__
from chatbot.chat import ChatService
from chatbot.events import Event, Failed, Finished, Progress, Started, TextDelta
from chatbot.session import open_service
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.versions import Version
from tests.conftest import Chatbot
from tests.tiny_models import tiny_gguf


@pytest.fixture
async def service(model_path: Path) -> AsyncIterator[ChatService]:
    async with open_service(Settings.load(max_tokens=40, temperature=0.0)) as opened:
        yield opened


async def register(name: str, file: Path) -> None:
    """As a training does, in a process of its own; here with a database connection of its own."""
    async with open_store(Settings.load()) as store:
        settings = {"engine": "llamacpp", "file": file.name, "context_length": 128, "chat_template": True}
        version = Version(
            "gpt", name, "1", folder=str(file.parent), checksum=name, code_version=__version__, settings=settings
        )
        await store.registry.add(version)


async def hear(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


def model_of(events: list[Event]) -> str:
    assert not any(isinstance(event, Failed) for event in events), events
    [finished] = [event for event in events if isinstance(event, Finished)]
    return finished.model


async def state_of(service: ChatService, name: str) -> str:
    return next(row.state for row in await service.store.registry.list("gpt") if row.version.name == name)


async def test_what_is_promoted_elsewhere_answers_the_next_turn_and_no_reply_is_cut(
    service: ChatService, model_path: Path, tmp_path: Path, chatbot: Chatbot
) -> None:
    shutil.copy(model_path, tmp_path / "tuned.gguf")
    await register("tuned", tmp_path / "tuned.gguf")
    first = await hear(service.send(None, "Hello!"))
    assert model_of(first) == "smollm2-135m-instruct@q4_1"
    conversation = next(event.conversation for event in first if isinstance(event, Started))
    heard: list[Event] = []

    async def under_way() -> None:
        async for event in service.send(None, "Count from one to thirty."):
            heard.append(event)

    task = asyncio.create_task(under_way())
    while not any(isinstance(event, TextDelta) for event in heard):
        await asyncio.sleep(0.01)
    done = await asyncio.to_thread(chatbot, "models", "promote", "tuned@1")
    assert done.returncode == 0, done.stderr
    assert model_of(await hear(service.send(conversation, "And now?"))) == "tuned@1"
    await task
    assert model_of(heard) == "smollm2-135m-instruct@q4_1"
    assert (await asyncio.to_thread(chatbot, "models", "rollback", "--kind", "gpt")).returncode == 0
    assert model_of(await hear(service.send(conversation, "And again?"))) == "smollm2-135m-instruct@q4_1"


@pytest.mark.parametrize("fault", ["broken", "silent", "stammering"])
async def test_what_cannot_speak_is_marked_as_failed_and_answers_nobody(
    service: ChatService, tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "worse.gguf"
    tiny_gguf(file, "nothing" if fault == "silent" else "never stops")
    if fault == "broken":
        file.write_bytes(file.read_bytes()[:3_000])
    await register("worse", file)
    await hear(service.send(None, "Hello!"))
    await service.store.registry.promote("worse@1")
    several = await asyncio.gather(*(hear(service.send(None, f"Hello, {n}!")) for n in range(3)))
    assert {model_of(events) for events in several} == {"smollm2-135m-instruct@q4_1"}
    told = [event.text for events in several for event in events if isinstance(event, Progress)]
    assert any("It is rolled back; smollm2-135m-instruct@q4_1 answers." in text for text in told)
    assert await state_of(service, "worse") == "failed"
    assert [entry.action for entry in await service.store.registry.history("gpt")] == ["rollback", "promote"]


async def test_what_a_person_chose_is_not_taken_from_them(service: ChatService, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "odd.gguf", "never stops")
    await service.store.registry.use(str(tmp_path / "odd.gguf"), lambda text, fraction: None)
    assert model_of(await hear(service.send(None, "hi"))) == "odd@local"
    (tmp_path / "odd.gguf").unlink()
    async with open_service(Settings.load()) as another:
        events = await hear(another.send(None, "hi"))
    assert isinstance(events[-1], Failed)
    assert "is missing" in events[-1].text
