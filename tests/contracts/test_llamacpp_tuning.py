"""Threads and slots are measured on the first start, and remembered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from chatbot.chat import ChatService
from chatbot.engines import llamacpp_tuning
from chatbot.engines.llamacpp_server import cores
from chatbot.engines.llamacpp_tuning import MOST_SLOTS, Tuning
from chatbot.events import Progress
from chatbot.session import open_service
from chatbot.settings import Settings
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
