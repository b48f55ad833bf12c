"""Which model answers where, changed in the middle, on real models in real processes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from chatbot.chat import ChatService
from chatbot.events import Event, Failed, Finished, Notice, Started
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.conftest import Chatbot
from tests.processes import engines_of
from tests.tiny_models import tiny_gguf, tiny_transformers


@pytest.fixture
async def service(model_path: Path) -> AsyncIterator[ChatService]:
    async with open_service(Settings.load(max_tokens=6, temperature=0.0)) as opened:
        yield opened


async def say(service: ChatService, conversation: str | None, text: str) -> tuple[str, list[Event]]:
    events: list[Event] = []
    async for event in service.send(conversation, text):
        events.append(event)
        if isinstance(event, Started):
            conversation = event.conversation
    assert conversation is not None
    return conversation, events


def answered(events: list[Event]) -> str:
    [finished] = [event for event in events if isinstance(event, Finished)]
    return finished.model


def memory_of_children() -> int:
    """Bytes resident in the processes of models."""
    return sum(child.memory_info().rss for child in engines_of(os.getpid()))


async def test_a_conversation_changes_its_model_and_the_others_do_not(service: ChatService, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", "never stops")
    one, events = await say(service, None, "hello")
    default = answered(events)
    other, _ = await say(service, None, "hello")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        _, events = await say(service, one, "/model ./tiny.gguf")
    assert any(isinstance(event, Notice) and "tiny@local answers here" in event.text for event in events)
    assert answered((await say(service, one, "hi"))[1]) == "tiny@local"
    assert answered((await say(service, other, "hello again"))[1]) == default
    await say(service, one, "/model default")
    assert answered((await say(service, one, "hi"))[1]) == default


async def test_the_memory_of_the_model_before_is_given_back(service: ChatService, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", "never stops")
    conversation, _ = await say(service, None, "hello")
    [before] = engines_of(os.getpid())
    large = memory_of_children()
    assert large > 100e6, "the weights alone are 98 MB"
    await say(service, conversation, f"/model {tmp_path / 'tiny.gguf'}")
    await say(service, conversation, "hi")
    async with asyncio.timeout(10):  # it is closed beside what is said
        while before.is_running() and before.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)
    assert memory_of_children() < large / 2


async def test_a_model_that_does_not_load_leaves_the_one_before(service: ChatService, tmp_path: Path) -> None:
    conversation, events = await say(service, None, "hello")
    default = answered(events)
    engines = engines_of(os.getpid())
    tiny_gguf(tmp_path / "tiny.gguf", "never stops")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "tiny.gguf").read_bytes()[:-2000])
    for name in (str(cut), "no-such-model", str(tmp_path / "missing.gguf")):
        _, events = await say(service, conversation, f"/model {name}")
        assert isinstance(events[-1], Failed), events
    assert engines_of(os.getpid()) == engines, "the same process still has it loaded"
    assert answered((await say(service, conversation, "go on"))[1]) == default


async def test_a_reply_under_way_is_not_cut_when_another_conversation_changes_its_model(
    service: ChatService, tmp_path: Path
) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", "never stops")
    other, _ = await say(service, None, "hello")
    reply = asyncio.create_task(say(service, None, "Tell me a story."))
    await asyncio.sleep(0.05)
    await say(service, other, f"/model {tmp_path / 'tiny.gguf'}")
    _, events = await reply
    assert isinstance(events[-1], Finished)
    assert events[-1].reason in ("stop", "length")


def test_a_folder_of_transformers_is_used_where_it_lies(chatbot: Chatbot, tmp_path: Path) -> None:
    tiny_transformers(tmp_path / "my-model", "never stops")
    used = chatbot("models", "use", str(tmp_path / "my-model"))
    assert used.returncode == 0, used.stderr
    asked = chatbot("ask", "hello", "--max-tokens", "4")
    assert asked.stdout == "aaaa\n", asked.stderr


def test_code_of_a_models_author_runs_only_where_that_was_allowed(chatbot: Chatbot, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    tiny_transformers(folder, "never stops")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Config(LlamaConfig):\n    model_type = 'mine'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    for command in (("models", "use", str(folder)), ("ask", "hello", "--model", str(folder))):
        refused = chatbot(*command)
        assert refused.returncode == 2
        assert "--trust-remote-code` lets that code run on this machine" in refused.stderr
    assert not (tmp_path / "ran").exists()
    assert chatbot("models", "use", "my-model", "--trust-remote-code").returncode == 0
    asked = chatbot("ask", "hello", "--max-tokens", "4")
    assert asked.stdout == "aaaa\n", asked.stderr
    assert (tmp_path / "ran").exists()


def test_what_cannot_answer_is_not_put_to_use(chatbot: Chatbot, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "odd.gguf", "never stops")
    whole = (tmp_path / "odd.gguf").read_bytes()
    (tmp_path / "odd.gguf").write_bytes(whole.replace(b"llama", b"lemur"))
    for name, reason in (
        (str(tmp_path / "odd.gguf"), "odd.gguf"),
        ("some-model@http://127.0.0.1:9/v1", "127.0.0.1:9"),
        ("all-minilm-l6-v2", "answers nothing itself"),
    ):
        used = chatbot("models", "use", name)
        assert used.returncode == 2, name
        assert reason in used.stderr
        assert "Traceback" not in used.stderr
    rows = json.loads(chatbot("models", "list", "--kind", "gpt", "--json").stdout)
    assert [row["name"] for row in rows if row["state"] == "current"] == ["smollm2-135m-instruct"]


def test_the_default_model_runs_in_transformers_too(
    chatbot: Chatbot, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_ENGINE", "hf")
    asked = chatbot("ask", "What colour is the sky on a clear day?", "--temperature", "0", "--max-tokens", "20")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("The sky on a clear day is")
