"""What is particular to endpoints: a real server of llama.cpp behind a proxy that misbehaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import pytest
import pytest_asyncio

from chatbot import trace
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.openai import OpenAIResponder, find_key
from chatbot.errors import ModelError
from tests.endpoints import MODEL, Endpoint, FaultyProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [ChatMessage("user", "Why is the sky blue? Explain at length.")]


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyProxy]:
    monkeypatch.setenv("CHATBOT_OPENAI_API_KEY", endpoint.key)
    async with FaultyProxy(endpoint.url) as opened:
        yield opened


async def load(url: str, timeout: float = 60) -> OpenAIResponder:
    return await OpenAIResponder.load("m@1", MODEL, url, context_length=1024, timeout=timeout)


async def ask(engine: OpenAIResponder, max_tokens: int = 12) -> tuple[str, Completion | None]:
    text, completion = "", None
    async with aclosing(engine.reply(MESSAGES, GenerationOptions(max_tokens=max_tokens, temperature=0))) as reply:
        async for piece in reply:
            if isinstance(piece, Completion):
                completion = piece
            else:
                text += piece
    return text, completion


async def test_a_reply_comes_through_a_proxy_that_behaves(proxy: FaultyProxy) -> None:
    engine = await load(proxy.url)
    text, completion = await ask(engine)
    assert text
    assert completion is not None
    assert completion.completion_tokens == 12
    await engine.close()


async def test_a_slow_endpoint_is_waited_for(proxy: FaultyProxy) -> None:
    engine = await load(proxy.url)
    proxy.fault = "slow"
    text, _ = await ask(engine)
    assert text
    await engine.close()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("down", "cannot be reached"),
        ("silent", "does not answer"),
        ("stalls", "stopped answering in the middle"),
        ("cut", "broke off in the middle"),
        ("unfinished", "broke off in the middle"),
        ("401", "refuses the key; set CHATBOT_OPENAI_API_KEY"),
        ("429", "try again in 1 seconds"),
        ("500", r"refused \(500\): the cluster is on fire"),
        ("429 for long", "try again in 60 seconds"),
        ("tells the key", r"refused \(400\): (the key ){36} \*\*\* is"),
        ("broken", "not of the OpenAI protocol"),
        ("html", "not of the OpenAI protocol"),
    ],
)
async def test_what_goes_wrong_is_said_in_a_sentence_without_the_key(
    proxy: FaultyProxy, endpoint: Endpoint, fault: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = await load(proxy.url, 2 if fault in ("silent", "stalls") else 60)
    proxy.fault = fault
    with pytest.raises(ModelError, match=sentence) as raised:
        await ask(engine, 60)
    for length in range(6, len(endpoint.key) + 1):
        assert endpoint.key[:length] not in str(raised.value), "nor the beginning of it"
    assert endpoint.key not in caplog.text
    proxy.fault = ""
    if fault not in ("silent", "stalls"):
        assert (await ask(engine))[0], "it answers again when the endpoint does"
    await engine.close()


async def test_too_many_requests_are_tried_again_after_the_time_they_say(proxy: FaultyProxy) -> None:
    engine = await load(proxy.url)
    proxy.fault, proxy.times = "429", 1
    began = asyncio.get_running_loop().time()
    assert (await ask(engine))[0]
    assert asyncio.get_running_loop().time() - began >= 1, "retry-after said one second"
    await engine.close()


@pytest.mark.parametrize("fault", ["silent", "429 for long"])
async def test_an_endpoint_that_needs_long_is_asked_once(proxy: FaultyProxy, fault: str) -> None:
    engine = await load(proxy.url, timeout=2)
    proxy.fault, proxy.asked = fault, 0
    began = asyncio.get_running_loop().time()
    with pytest.raises(ModelError):
        await ask(engine)
    assert asyncio.get_running_loop().time() - began < 4
    assert proxy.asked == 1
    await engine.close()


@pytest.mark.parametrize("fault", ["down", "500"])
async def test_an_endpoint_that_fails_for_a_moment_is_tried_again(proxy: FaultyProxy, fault: str) -> None:
    engine = await load(proxy.url)
    proxy.fault, proxy.times, proxy.asked = fault, 2, 0
    assert (await ask(engine))[0]
    assert proxy.asked == 3
    await engine.close()


async def test_what_an_endpoint_leaves_out_of_its_usage_is_estimated(proxy: FaultyProxy) -> None:
    engine = await load(proxy.url)
    proxy.fault = "nulls"
    text, completion = await ask(engine)
    assert text == "The"
    assert completion is not None
    assert completion.completion_tokens == 1
    assert completion.prompt_tokens == await engine.count_tokens(MESSAGES)
    assert completion.cached_tokens == 0
    await engine.close()


async def test_no_trace_holds_the_key(
    proxy: FaultyProxy, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_HIDDEN", set())
    await (await load(proxy.url)).close()
    assert trace.without_secrets(f"Bearer {endpoint.key}") == "Bearer ***"
    monkeypatch.setenv("CHATBOT_OPENAI_API_KEY", "none")
    with suppress(ModelError):
        await load(proxy.url)
    assert trace.without_secrets("there is none") == "there is none", "what stands for no key is no secret"


async def test_an_endpoint_without_the_model_says_what_it_has(proxy: FaultyProxy) -> None:
    with pytest.raises(ModelError, match=f"no model 'other'; it has {MODEL}"):
        await OpenAIResponder.load("m@1", "other", proxy.url, context_length=1024, timeout=20)


async def test_openais_key_is_sent_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.delenv("CHATBOT_OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert find_key("https://api.openai.com/v1") == "secret"
    assert find_key("http://localhost:11434/v1") == ""
    assert find_key("http://api.openai.com/v1") == "", "it would be sent for all to read"
    assert find_key("https://api.openai.com.evil.example/v1") == ""
