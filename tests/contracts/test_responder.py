"""What every text engine keeps to. A new engine joins by a line in `responder`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions, Responder
from chatbot.engines.fake import ScriptedResponder
from chatbot.engines.hf import HfResponder
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.openai import OpenAIResponder
from chatbot.errors import ModelError
from tests.contracts.conftest import CONTEXT
from tests.endpoints import MODEL, Endpoint
from tests.processes import engines_of

QUESTION = [ChatMessage("system", "You are brief."), ChatMessage("user", "Why is the sky blue? Explain at length.")]
LONG = " ".join(f"word{number}" for number in range(400))


@pytest.fixture(scope="module", params=["fake", "llamacpp", "hf", "openai"])
async def responder(
    request: pytest.FixtureRequest, model_path: Path, hf_folder: Path, endpoint: Endpoint
) -> AsyncIterator[Responder]:
    engine: Responder
    if request.param == "fake":
        engine = ScriptedResponder(lambda messages: LONG, delay=0.002, context_length=CONTEXT)
    elif request.param == "hf":
        engine = await HfResponder.load(hf_folder, "smollm2@f32", context_length=CONTEXT, slots=2)
    elif request.param == "openai":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CHATBOT_OPENAI_API_KEY", endpoint.key)
            engine = await OpenAIResponder.load("m@url", MODEL, endpoint.url, context_length=CONTEXT, timeout=60)
    else:
        engine = await LlamaCppResponder.load(model_path, "smollm2@q4_1", context_length=CONTEXT, slots=2)
    yield engine
    await engine.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def collect(
    responder: Responder, messages: list[ChatMessage], options: GenerationOptions
) -> tuple[list[str], Completion]:
    pieces: list[str] = []
    completion: Completion | None = None
    async with aclosing(responder.reply(messages, options)) as reply:
        async for piece in reply:
            assert completion is None, "nothing comes after the Completion"
            if isinstance(piece, Completion):
                completion = piece
            else:
                pieces.append(piece)
    assert completion is not None
    return pieces, completion


async def test_a_reply_streams_in_pieces_and_ends_with_its_completion(responder: Responder) -> None:
    pieces, completion = await collect(responder, QUESTION, GenerationOptions(max_tokens=30, temperature=0))
    assert len(pieces) > 10
    assert all(pieces)
    assert completion.finish_reason == "length"
    assert completion.completion_tokens == 30
    assert completion.decode_tokens_per_s > 0


async def test_tokens_are_counted_as_the_engine_counts_its_own_prompt(responder: Responder) -> None:
    for messages in (
        QUESTION,
        QUESTION[1:],
        [
            *QUESTION,
            ChatMessage("assistant", "Because."),
            ChatMessage("user", "日本語 😀\n\n  spaced\ttext <|im_end|>"),
        ],
    ):
        counted = await responder.count_tokens(messages)
        _, completion = await collect(responder, messages, GenerationOptions(max_tokens=1, temperature=0))
        if isinstance(responder, OpenAIResponder):  # the tokenizer is elsewhere: rather too many than too few
            assert completion.prompt_tokens <= counted <= 3 * completion.prompt_tokens
        else:
            assert counted == completion.prompt_tokens


async def test_the_same_seed_gives_the_same_reply(responder: Responder) -> None:
    options = GenerationOptions(max_tokens=20, temperature=0.9, seed=7)
    first, _ = await collect(responder, QUESTION, options)
    second, _ = await collect(responder, QUESTION, options)
    assert "".join(first) == "".join(second)


async def test_the_same_stop_ends_the_reply_before_it(responder: Responder) -> None:
    options = GenerationOptions(max_tokens=24, temperature=0)
    whole = "".join((await collect(responder, QUESTION, options))[0])
    stop = whole.split()[5]
    pieces, completion = await collect(responder, QUESTION, replace(options, stop=("never said", stop)))
    assert "".join(pieces) == whole[: whole.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.completion_tokens < 24


async def assert_idle() -> None:
    """The processes of the engines have stopped computing; what they had to finish, they were given time for."""
    engines = engines_of(os.getpid())
    await asyncio.sleep(1.5)
    before = sum(sum(engine.cpu_times()[:2]) for engine in engines)
    await asyncio.sleep(1.0)
    assert sum(sum(engine.cpu_times()[:2]) for engine in engines) - before < 0.3


async def test_closing_the_reply_stops_it_and_leaves_the_engine_usable(responder: Responder) -> None:
    async with aclosing(responder.reply(QUESTION, GenerationOptions(max_tokens=600))) as reply:
        assert isinstance(await anext(reply), str)
    await assert_idle()
    _, completion = await collect(responder, QUESTION, GenerationOptions(max_tokens=5))
    assert completion.completion_tokens == 5


async def test_cancelling_the_reader_stops_the_reply(responder: Responder) -> None:
    came = asyncio.Event()

    async def read() -> None:
        async with aclosing(responder.reply(QUESTION, GenerationOptions(max_tokens=600))) as reply:
            async for _ in reply:
                came.set()

    reader = asyncio.create_task(read())
    await came.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await assert_idle()
    _, completion = await collect(responder, QUESTION, GenerationOptions(max_tokens=5))
    assert completion.completion_tokens == 5


async def test_replies_run_side_by_side(responder: Responder) -> None:
    options = GenerationOptions(max_tokens=25, temperature=0)
    order: list[int] = []

    async def read(number: int) -> None:
        async with aclosing(responder.reply(QUESTION, options)) as reply:
            async for _ in reply:
                order.append(number)

    await asyncio.gather(read(0), read(1))
    assert order.count(0) == order.count(1)
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)


async def test_a_prompt_longer_than_the_context_is_refused_in_a_sentence(responder: Responder) -> None:
    messages = [ChatMessage("user", "many words " * CONTEXT)]
    assert await responder.count_tokens(messages) > CONTEXT
    with pytest.raises(ModelError, match=str(CONTEXT)):
        await collect(responder, messages, GenerationOptions(max_tokens=5))


async def test_a_reply_never_outgrows_the_context(responder: Responder) -> None:
    messages = [ChatMessage("user", "go on: " + "la " * 400)]
    prompt = await responder.count_tokens(messages)
    _, completion = await collect(responder, messages, GenerationOptions(max_tokens=CONTEXT - prompt))
    assert prompt + completion.completion_tokens <= CONTEXT


async def test_a_cut_reply_is_gone_on_with_as_if_it_had_never_been_cut(responder: Responder) -> None:
    whole, _ = await collect(responder, QUESTION, GenerationOptions(max_tokens=24, temperature=0))
    begun, cut = await collect(responder, QUESTION, GenerationOptions(max_tokens=12, temperature=0))
    resumed = [*QUESTION, ChatMessage("assistant", "".join(begun))]
    rest, completion = await collect(responder, resumed, GenerationOptions(max_tokens=12, temperature=0))
    assert "".join(begun) + "".join(rest) == "".join(whole)
    assert cut.prompt_tokens < completion.prompt_tokens
    if not isinstance(responder, OpenAIResponder):
        assert await responder.count_tokens(resumed) == completion.prompt_tokens
