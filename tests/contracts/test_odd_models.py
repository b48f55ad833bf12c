"""Models at the edge, the same in every engine: they say nothing, never stop, have a tiny context or no template."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from chatbot.child import Child
from chatbot.context import build_context
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions, Responder
from chatbot.engines.fake import ScriptedResponder
from chatbot.engines.hf import HfResponder
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.openai import OpenAIResponder
from chatbot.engines.prompt import PLAIN_TEMPLATE
from chatbot.errors import MessageError, ModelError
from chatbot.settings import Settings
from chatbot.store import open_store
from tests.tiny_models import CHATML, Says, tiny_gguf, tiny_transformers

ENGINES = ["fake", "llamacpp", "hf", "openai"]
CONTEXT = 128
HELLO = [ChatMessage("user", "hi")]


@asynccontextmanager
async def opened(engine: str, says: Says, folder: Path, *, template: str | None = CHATML) -> AsyncIterator[Responder]:
    child: Child | None = None
    responder: Responder
    if engine == "fake":
        script = "" if says == "nothing" else "a " * 1000
        responder = ScriptedResponder(lambda messages: script, context_length=CONTEXT)
    elif engine == "hf":
        tiny_transformers(folder / "model", says, template=template)
        responder = await HfResponder.load(folder / "model", "tiny@1", context_length=CONTEXT)
    else:
        file = folder / "model.gguf"
        tiny_gguf(file, says, template=template)
        if engine == "llamacpp":
            responder = await LlamaCppResponder.load(
                file, "tiny@1", context_length=CONTEXT, chat_template="" if template else PLAIN_TEMPLATE
            )
        else:
            child = await Child.start(
                "chatbot.engines.llamacpp_server",
                {"path": str(file), "alias": "tiny", "context": CONTEXT, "slots": 1, "threads": 1, "key": "k"},
            )
            said = await child.receive()
            assert said is not None
            os.environ["CHATBOT_OPENAI_API_KEY"] = "k"
            responder = await OpenAIResponder.load(
                "tiny@1", "tiny", f"{said['address']}/v1", context_length=CONTEXT, timeout=60
            )
    try:
        yield responder
    finally:
        os.environ.pop("CHATBOT_OPENAI_API_KEY", None)
        await responder.close()
        if child is not None:
            await child.close()


async def finish(responder: Responder, messages: list[ChatMessage], max_tokens: int) -> tuple[str, Completion]:
    text = ""
    async with aclosing(responder.reply(messages, GenerationOptions(max_tokens=max_tokens, temperature=0))) as reply:
        async for piece in reply:
            if isinstance(piece, Completion):
                return text, piece
            text += piece
    raise AssertionError("no completion came")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_model_that_says_nothing_ends_its_reply(engine: str, tmp_path: Path) -> None:
    async with opened(engine, "nothing", tmp_path) as responder:
        text, completion = await finish(responder, HELLO, 20)
        assert text == ""
        assert completion.finish_reason == "stop"
        assert completion.completion_tokens <= 1, "the end of the turn at most"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_model_that_never_stops_is_cut_at_the_longest_reply(engine: str, tmp_path: Path) -> None:
    async with opened(engine, "never stops", tmp_path) as responder:
        text, completion = await finish(responder, HELLO, 20)
        assert text.replace(" ", "") == "a" * 20
        assert completion.finish_reason == "length"
        assert completion.completion_tokens == 20


@pytest.mark.parametrize("engine", ["fake", "llamacpp", "hf"])
async def test_a_reply_ends_where_a_tiny_context_is_full(engine: str, tmp_path: Path) -> None:
    async with opened(engine, "never stops", tmp_path) as responder:
        assert responder.context_length == CONTEXT
        _, completion = await finish(responder, HELLO, 1000)
        assert completion.finish_reason == "length"
        # llama.cpp ends a reply where there is no more room for the 16 tokens it would guess ahead.
        assert CONTEXT - 16 <= completion.prompt_tokens + completion.completion_tokens <= CONTEXT + 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_prompt_beyond_a_tiny_context_is_refused(engine: str, tmp_path: Path) -> None:
    async with opened(engine, "never stops", tmp_path) as responder:
        with pytest.raises(ModelError, match=str(CONTEXT)):
            await finish(responder, [ChatMessage("user", "b " * 200)], 5)
        async with open_store(Settings.load()) as store:
            conversation = (await store.conversations.create("")).id
            turn = await store.conversations.add_turn(conversation, "b " * 200)
            with pytest.raises(MessageError, match="Send a shorter one"):
                await build_context(store, turn.said.id, "", responder, 1024)


@pytest.mark.parametrize("engine", ["llamacpp", "hf"])
async def test_without_a_chat_template_a_transcript_is_continued(engine: str, tmp_path: Path) -> None:
    async with opened(engine, "never stops", tmp_path, template=None) as responder:
        messages = [ChatMessage("system", "S"), ChatMessage("user", "U"), ChatMessage("assistant", "A"), *HELLO]
        assert await responder.count_tokens(messages) == len("S\n\nUser: U\nAssistant: A\nUser: hi\nAssistant:")
        text, _ = await finish(responder, messages, 5)
        assert text == "aaaaa"
