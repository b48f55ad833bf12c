"""Threads and slots are measured on the first start, and remembered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chatbot.chat import ChatService
from chatbot.engines import llamacpp_tuning
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.fake import ScriptedResponder
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.llamacpp_server import cores
from chatbot.engines.llamacpp_tuning import MOST_SLOTS, Tuning
from chatbot.events import Progress
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.processes import engines_of
from tests.tiny_models import tiny_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tuning.json"


@pytest.fixture
def deaf_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp_tuning, "_BUSY", 1e9)  # the machine of a test may be a busy one


async def test_what_was_measured_is_remembered_for_this_model_alone(
    model_path: Path, file: Path, deaf_to_others: None
) -> None:
    file.write_text("not JSON")
    assert llamacpp_tuning.remembered(file, "a") is None
    measured = await llamacpp_tuning.measure(model_path, "a", file, context=2048)
    assert 1 <= measured.threads <= cores()
    assert measured.slots in (1, 2, 4, 8, MOST_SLOTS)
    assert llamacpp_tuning.remembered(file, "a") == measured
    assert llamacpp_tuning.remembered(file, "b") is None


async def test_it_is_remembered_where_the_folder_was_not_there_yet(
    model_path: Path, file: Path, deaf_to_others: None
) -> None:
    file = file.parent / "not" / "there" / file.name
    measured = await llamacpp_tuning.measure(model_path, "a", file, context=2048)
    assert llamacpp_tuning.remembered(file, "a") == measured


async def test_a_model_that_fits_once_is_loaded_once_at_a_time_and_may_fail_to_load_again(
    model_path: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf_to_others: None
) -> None:
    (model := tmp_path / "model.gguf").symlink_to(model_path)
    load = LlamaCppResponder.load
    beside: list[int] = []

    async def only_once(path: Path, *rest: Any, **options: Any) -> LlamaCppResponder:
        beside.append(len(engines_of(os.getpid())))
        engine = await load(path, *rest, **options)
        model.unlink()
        return engine

    monkeypatch.setattr(LlamaCppResponder, "load", only_once)
    monkeypatch.setattr(llamacpp_tuning, "cores", lambda: 2)
    assert await llamacpp_tuning.measure(model, "a", file, context=512) == Tuning(2, 2)
    assert beside == [0, 0]
    assert not file.exists()
    assert not engines_of(os.getpid())


async def test_a_slow_model_is_listened_to_for_longer() -> None:
    slow = ScriptedResponder(lambda messages: "and so on " * 100, delay=0.3)
    assert await llamacpp_tuning._speed(slow, 1) == pytest.approx(1 / 0.3, rel=0.1)
    assert await llamacpp_tuning._speed(slow, 4) == pytest.approx(4 / 0.3, rel=0.1)


class OfFewSlots(ScriptedResponder):
    """Answers three at once."""

    def __init__(self) -> None:
        super().__init__(lambda messages: "and so on " * 1000, delay=0.02)
        self._slots = asyncio.Semaphore(3)

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        async with self._slots:
            async for piece in super().reply(messages, options):
                yield piece


async def test_more_at_once_than_a_slow_model_begins_in_time_are_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llamacpp_tuning, "_PATIENCE_S", 1.0)
    assert list(await llamacpp_tuning._together(OfFewSlots(), 50.0)) == [1, 2]


async def test_slots_that_give_a_little_more_are_worth_it_while_memory_allows(
    model_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, deaf_to_others: None
) -> None:
    async def together(engine: LlamaCppResponder, alone: float) -> dict[int, float]:
        await llamacpp_tuning._speed(engine, 1)  # the memory of a token is known from any slot
        return {1: 100.0, 2: 190.0, 4: 200.0, 8: 205.0, 16: 205.0}

    monkeypatch.setattr(llamacpp_tuning, "_together", together)
    assert (await llamacpp_tuning.measure(model_path, "a", file, context=512)).slots == 4


async def test_slots_leave_most_of_the_memory_alone(model_path: Path, file: Path, deaf_to_others: None) -> None:
    measured = await llamacpp_tuning.measure(model_path, "a", file, context=10**7)
    assert measured.slots == 1


async def test_a_model_that_says_nothing_is_not_measured(tmp_path: Path, file: Path, deaf_to_others: None) -> None:
    model = tmp_path / "tiny.gguf"
    tiny_gguf(model, says="nothing")
    assert await llamacpp_tuning.measure(model, "a", file, context=512) == Tuning(cores(), 2)
    assert not file.exists()


async def test_a_busy_machine_is_not_measured(model_path: Path, file: Path) -> None:
    # The shell ends at once, so that what it leaves running is no child of ours: another program, as seen from here.
    script = "while :; do :; done > /dev/null 2>&1 & echo $!"
    other = int(subprocess.check_output(["bash", "-c", script]))
    try:
        assert await llamacpp_tuning.measure(model_path, "a", file, context=512) == Tuning(cores(), 2)
        assert not file.exists()
    finally:
        os.kill(other, signal.SIGKILL)


async def test_the_first_start_says_that_it_measures_and_the_second_does_not(
    model_path: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deaf_to_others: None,
    unmeasured: None,
) -> None:
    monkeypatch.setattr(Settings, "tuning_file", property(lambda _: tmp_path / "tuning.json"))
    said: list[list[str]] = []
    for _ in range(2):
        said.append([])
        async with open_service(Settings.load(max_tokens=4)) as service:
            await _load(service, said[-1])
    assert any("Measuring" in text for text in said[0])
    assert not any("Measuring" in text for text in said[1])
    assert json.loads((tmp_path / "tuning.json").read_text())


async def _load(service: ChatService, said: list[str]) -> None:
    def tell(progress: Progress) -> None:
        said.append(progress.text)

    await service.models.load(tell)
