"""Replies computed in one batch are those computed on their own. A small model with random weights, on the CPU."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from chatbot.engines import hf_model
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.hf import HfResponder
from chatbot.engines.hf_batching import Batching
from chatbot.engines.hf_model import HfModel
from tests.tiny_models import tiny_transformers

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not Batching.available(), reason="transformers is too old for batches"),
]

CONTEXT = 128
PROMPTS = [[ChatMessage("user", text)] for text in ("a", "bcd " * 8, "日本語 😀")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    tiny_transformers(folder, says="never stops")
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_()
    model.save_pretrained(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def batched(folder: Path) -> AsyncIterator[HfResponder]:
    engine = await HfResponder.load(folder, "m@1", context_length=CONTEXT, slots=3, device="cpu", batching=True)
    yield engine
    await engine.close()


async def finish(engine: HfResponder, messages: list[ChatMessage], **options: Any) -> tuple[str, Completion]:
    text = ""
    async with aclosing(engine.reply(messages, GenerationOptions(**{"max_tokens": 20} | options))) as reply:
        async for piece in reply:
            if isinstance(piece, Completion):
                return text, piece
            text += piece
    raise AssertionError("no completion came")


async def test_a_batch_says_to_each_what_it_is_told_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In short numbers a batch rounds otherwise than one alone, and a near tie falls to the other side.
    monkeypatch.setattr(hf_model, "_dtype", lambda device: torch.float32)
    options = GenerationOptions(max_tokens=20, temperature=0)
    alone = HfModel(folder, "m@1", context_length=CONTEXT, device="cpu", batching=False)
    expected = [list(alone.reply(prompt, options)) for prompt in PROMPTS]
    batched = HfModel(folder, "m@1", context_length=CONTEXT, memories=3, device="cpu", batching=True)
    assert batched._batching is not None
    try:
        replies = [batched.reply(prompt, options) for prompt in PROMPTS]
        together: list[list[str | Completion]] = [[] for _ in replies]
        while not all(pieces and isinstance(pieces[-1], Completion) for pieces in together):
            for reply, pieces in zip(replies, together, strict=True):
                pieces += [piece for piece in [next(reply, "")] if piece]
    finally:
        batched._batching.close()
    assert [text_of(pieces) for pieces in together] == [text_of(pieces) for pieces in expected]
    assert len({text_of(pieces) for pieces in together}) == 3


def text_of(pieces: list[str | Completion]) -> str:
    assert isinstance(pieces[-1], Completion)
    assert pieces[-1].completion_tokens == 20
    return "".join(piece for piece in pieces if isinstance(piece, str))


async def test_each_of_a_batch_has_its_own_temperature(batched: HfResponder) -> None:
    cold = [finish(batched, PROMPTS[0], temperature=0) for _ in range(2)]
    hot = [finish(batched, PROMPTS[0], temperature=5.0, top_p=1.0)]
    texts = [text for text, _ in await asyncio.gather(*cold, *hot)]
    assert texts[0] == texts[1]
    assert texts[2] != texts[0]


async def test_of_tokens_that_are_equally_likely_temperature_0_always_takes_the_same(tmp_path: Path) -> None:
    tiny_transformers(tmp_path, says="never stops")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    letters = [model.lm_head.weight.argmax(0)[0].item() + step for step in range(4)]
    with torch.no_grad():
        model.lm_head.weight[letters] = 1.0
    model.save_pretrained(tmp_path)
    engine = await HfResponder.load(tmp_path, "m@1", context_length=CONTEXT, device="cpu", batching=True)
    try:
        text, _ = await finish(engine, PROMPTS[0], temperature=0, max_tokens=40)
        drawn, _ = await finish(engine, PROMPTS[0], temperature=1.0, top_p=1.0, max_tokens=40)
    finally:
        await engine.close()
    assert len(set(text)) == 1
    assert set(drawn) == set("abcd")


async def test_a_reply_on_its_own_and_a_batch_do_not_compute_at_the_same_time(folder: Path) -> None:
    model = HfModel(folder, "m@1", context_length=CONTEXT, memories=2, device="cpu", batching=True)
    inside: set[int] = set()
    together: list[int] = []
    threads: set[int] = set()

    def enter(*arguments: Any) -> None:
        inside.add(threading.get_ident())
        threads.add(threading.get_ident())
        together.append(len(inside))

    model.network.register_forward_pre_hook(enter)
    model.network.register_forward_hook(lambda *arguments: inside.discard(threading.get_ident()))
    assert model._batching is not None
    try:
        seeded = model.reply(PROMPTS[0], GenerationOptions(max_tokens=60, temperature=2.0, seed=7))
        batched = model.reply(PROMPTS[1], GenerationOptions(max_tokens=60, temperature=0))
        replies = [batched, seeded]
        while replies:
            replies = [reply for reply in replies if next(reply, None) is not None]
    finally:
        model._batching.close()
    assert len(threads) == 2
    assert max(together) == 1


@pytest.mark.parametrize("context_length", [CONTEXT, 10**12])
async def test_where_memory_lacks_for_batches_replies_are_made_on_their_own(
    folder: Path, context_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_model, "_dtype", lambda device: torch.float32)
    options = GenerationOptions(max_tokens=20, temperature=0)
    alone = HfModel(folder, "m@1", context_length=CONTEXT, device="cpu", batching=False)
    model = HfModel(folder, "m@1", context_length=context_length, memories=2, device="cpu", batching=True)
    this_thread = threading.get_ident()

    def fail(*arguments: Any) -> None:
        if threading.get_ident() != this_thread:
            raise RuntimeError("out of memory")

    model.network.register_forward_pre_hook(fail)  # where the pages themselves could be had
    expected = text_of(list(alone.reply(PROMPTS[1], options)))
    for _ in range(2):
        assert text_of(list(model.reply(PROMPTS[1], options))) == expected
    assert model._batching is None


async def test_one_of_a_batch_is_stopped_and_the_others_go_on(batched: HfResponder) -> None:
    going_on = asyncio.create_task(finish(batched, PROMPTS[1], temperature=0, max_tokens=40))
    async with aclosing(batched.reply(PROMPTS[0], GenerationOptions(max_tokens=90, temperature=0))) as reply:
        async for piece in reply:
            assert isinstance(piece, str)
            break
    _, completion = await going_on
    assert completion.completion_tokens == 40
    again, _ = await finish(batched, PROMPTS[0], temperature=0)
    assert again


async def test_a_reply_with_a_seed_is_made_on_its_own_and_can_be_made_again(batched: HfResponder) -> None:
    hot = {"temperature": 2.0, "top_p": 1.0, "seed": 7}
    first, second = await asyncio.gather(finish(batched, PROMPTS[0], **hot), finish(batched, PROMPTS[0], **hot))
    assert first[0] == second[0]
