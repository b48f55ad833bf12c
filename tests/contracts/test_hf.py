"""What is particular to transformers, on the real model in this process."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.hf import HfResponder
from chatbot.engines.hf_model import HfModel
from chatbot.errors import ModelError
from tests.tiny_models import tiny_transformers

CONTEXT = 1024
QUESTION = [ChatMessage("system", "You are brief."), ChatMessage("user", "Why is the sky blue?")]


@pytest.fixture(scope="module")
def model(hf_folder: Path) -> HfModel:
    return HfModel(hf_folder, "m@1", context_length=CONTEXT, memories=2)


def finish(model: HfModel, messages: list[ChatMessage], **options: Any) -> tuple[str, Completion]:
    pieces = list(model.reply(messages, GenerationOptions(**{"max_tokens": 24, "temperature": 0} | options)))
    assert isinstance(pieces[-1], Completion)
    return "".join(piece for piece in pieces if isinstance(piece, str)), pieces[-1]


def test_it_says_what_generate_says(model: HfModel) -> None:
    text, _ = finish(model, QUESTION)
    ids = torch.tensor([model.prompt(QUESTION)])
    plain = model._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    assert text == model._tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_turn_reads_only_what_is_new_and_knows_the_same(model: HfModel) -> None:
    messages = list(QUESTION)
    for question in ("And at sunset?", "And on Mars?", "日本語で 😀"):
        text, before = finish(model, messages)
        messages += [ChatMessage("assistant", text), ChatMessage("user", question)]
    ids = model.prompt(messages)
    with torch.inference_mode():
        memory = model._remember(ids)
        assert len(memory.ids) >= before.prompt_tokens
        warm = model._read(memory, ids[len(memory.ids) :])
        model._memories.clear()
        cold = model._read(model._remember(ids), ids)
    assert torch.cosine_similarity(warm, cold, dim=0) > 0.999


def test_two_conversations_do_not_take_each_others_memory(model: HfModel) -> None:
    model._memories.clear()
    one = [ChatMessage("user", "Tell me about the sea, the waves and the ships on it.")]
    two = [ChatMessage("user", "What is a good name for a small grey cat?")]
    for messages in (one, two):
        text, _ = finish(model, messages)
        messages += [ChatMessage("assistant", text), ChatMessage("user", "Go on.")]
    for messages in (one, two):
        _, completion = finish(model, messages)
        assert completion.cached_tokens > 24


def test_control_tokens_that_a_person_types_stay_text(model: HfModel) -> None:
    plain = len(model.prompt([ChatMessage("user", "")]))
    assert len(model.prompt([ChatMessage("user", "<|im_end|>")])) - plain > 1


def test_characters_of_several_tokens_come_whole(model: HfModel) -> None:
    for piece in model.reply(
        [ChatMessage("user", "Repeat exactly: 😀🎉日本語 😀🎉日本語")],
        GenerationOptions(max_tokens=60, temperature=0),
    ):
        assert not isinstance(piece, str) or "�" not in piece


def test_a_stop_text_ends_the_reply_before_it(model: HfModel) -> None:
    whole, _ = finish(model, QUESTION)
    word = whole.split()[4]
    cut, completion = finish(model, QUESTION, stop=(word,))
    assert cut == whole[: whole.index(word)]
    assert completion.finish_reason == "stop"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "nothing")
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        HfModel(tmp_path, "m@1", context_length=64)


async def test_a_folder_that_is_no_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="m@1 cannot be loaded"):
        await HfResponder.load(tmp_path, "m@1", context_length=64)


async def test_its_process_dying_ends_a_reply_in_a_sentence(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, "never stops")
    engine = await HfResponder.load(tmp_path, "m@1", context_length=100_000)
    with pytest.raises(ModelError, match="stopped answering"):
        async with aclosing(engine.reply([ChatMessage("user", "a")], GenerationOptions(max_tokens=90_000))) as reply:
            async for _ in reply:
                engine._child._process.kill()
    await asyncio.sleep(0.1)
    assert not engine.alive
    with pytest.raises(ModelError, match="stopped answering"):
        await engine.count_tokens([ChatMessage("user", "a")])
    await engine.close()
