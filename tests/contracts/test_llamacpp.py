"""What is particular to llama.cpp, on the real model."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.llamacpp import LlamaCppResponder, _Read
from chatbot.engines.prompt import Prompt
from chatbot.engines.prompt_cache import PromptCache
from chatbot.engines.trial import try_out
from chatbot.errors import ModelError
from chatbot.summarise import _NOTE, _ask

HELLO = [ChatMessage("user", "Hello")]


async def finish(engine: LlamaCppResponder, messages: list[ChatMessage], **options: int) -> tuple[str, Completion]:
    text = ""
    async with aclosing(
        engine.reply(messages, GenerationOptions(**{"max_tokens": 24, "temperature": 0} | options))
    ) as reply:
        async for piece in reply:
            if isinstance(piece, Completion):
                return text, piece
            text += piece
    raise AssertionError("no completion came")


async def test_control_tokens_that_a_person_types_stay_text(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    try:
        plain = await engine.count_tokens([ChatMessage("user", "")])
        typed = await engine.count_tokens([ChatMessage("user", "<|im_end|>")])
        assert typed - plain > 1, "one token would be the real end of the turn"
    finally:
        await engine.close()


async def test_the_next_turn_reads_only_what_is_new(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=2048, slots=2)
    try:
        messages = [ChatMessage("user", "Tell me about the sea. " * 20)]
        text, first = await finish(engine, messages)
        assert first.cached_tokens < 40
        messages += [ChatMessage("assistant", text), ChatMessage("user", "And the sky?")]
        _, second = await finish(engine, messages)
        assert second.cached_tokens >= first.prompt_tokens - 1
    finally:
        await engine.close()


async def test_characters_of_several_tokens_come_whole(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    try:
        messages = [ChatMessage("user", "Repeat exactly: 😀🎉日本語 😀🎉日本語 😀🎉日本語")]
        async with aclosing(engine.reply(messages, GenerationOptions(max_tokens=60, temperature=0))) as reply:
            async for piece in reply:
                assert not isinstance(piece, str) or "�" not in piece
    finally:
        await engine.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nothing of the kind" * 100])
async def test_a_file_that_is_no_gguf_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded"):
        await LlamaCppResponder.load(path, "bad@1", context_length=512)


async def test_a_truncated_model_is_refused_in_a_sentence(tmp_path: Path, model_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(model_path.read_bytes()[:40_000_000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        await LlamaCppResponder.load(path, "short@1", context_length=512)


async def test_a_server_that_dies_fails_the_reply_in_a_sentence(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    try:
        with pytest.raises(ModelError, match="broke off|stopped answering"):
            async with aclosing(
                engine.reply([ChatMessage("user", "Tell a long story.")], GenerationOptions(max_tokens=400))
            ) as reply:
                async for _ in reply:
                    _children()[0].kill()
    finally:
        await engine.close()


async def test_it_answers_after_a_pause_longer_than_the_server_keeps_a_connection(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    try:
        await finish(engine, [ChatMessage("user", "Hello")])
        await asyncio.sleep(7)  # the server hangs up idle connections after five seconds
        await finish(engine, [ChatMessage("user", "Hello again")])
    finally:
        await engine.close()


async def test_closing_ends_the_server_process(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    assert len(_children()) == 1
    await engine.close()
    assert _children() == []


async def test_cancelling_the_loading_leaves_no_process(model_path: Path) -> None:
    loading = asyncio.create_task(LlamaCppResponder.load(model_path, "m@1", context_length=8192))
    while not _children():
        await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert _children() == []


def _children() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children(recursive=True) if "llamacpp_server" in " ".join(child.cmdline())
    ]


TEXT = (
    "The ferry to the northern islands leaves from the old harbour every morning at seven. Passengers should arrive "
    "thirty minutes before departure with a printed ticket. Dogs are welcome on the lower deck."
)


async def test_guessing_ahead_changes_no_word(model_path: Path) -> None:
    texts: dict[bool, list[str]] = {}
    right: dict[bool, list[int]] = {}
    for speculate in (True, False):
        engine = await LlamaCppResponder.load(model_path, "m@1", context_length=2048, speculate=speculate)
        right[speculate] = guessed_right(engine)
        try:
            texts[speculate] = [
                (await finish(engine, [ChatMessage("user", task)], max_tokens=80))[0]
                for task in (
                    f"Repeat the following text exactly, word for word:\n\n{TEXT}",
                    f"Write this text again with 'ferry' replaced by 'boat':\n\n{TEXT}",
                    f"Summarize this text using its own sentences:\n\n{TEXT}",
                    "Tell me a long story about the sea.",
                )
            ]
        finally:
            await engine.close()
    assert texts[True] == texts[False]
    assert all(texts[True])
    assert all(right[True][:3]), "not only in the first conversation of a slot"
    assert not any(right[False])


async def test_where_several_are_answered_nothing_is_guessed(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=2048, slots=3)
    right = guessed_right(engine)
    try:
        await finish(engine, [ChatMessage("user", f"Repeat the following text exactly:\n\n{TEXT}")], max_tokens=80)
    finally:
        await engine.close()
    assert right == [0]


def guessed_right(engine: LlamaCppResponder) -> list[int]:
    """How many tokens of each reply were guessed ahead and right, as the replies come."""
    counts: list[int] = []
    stream = engine.client.stream

    async def counting(path: str, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        async for chunk in stream(path, request):
            if "timings" in chunk:
                counts.append(chunk["timings"].get("draft_n_accepted", 0))
            yield chunk

    engine.client.stream = counting  # type: ignore[method-assign]  # it counts on the way
    return counts


async def test_the_next_reply_need_not_read_what_is_certain_to_come(model_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=2048)
    try:
        messages = [ChatMessage("user", "Tell me about the sea.")]
        text, first = await finish(engine, messages)
        await asyncio.sleep(1)  # a person reads and types; the engine reads on
        messages += [ChatMessage("assistant", text), ChatMessage("user", "And the sky?")]
        _, second = await finish(engine, messages)
        assert second.cached_tokens > first.prompt_tokens + first.completion_tokens
    finally:
        await engine.close()


async def test_it_reads_on_only_where_nobody_else_is_being_answered(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_on: list[str] = []
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512, slots=2)
    try:
        monkeypatch.setattr(engine, "_read_on", lambda messages, *_: read_on.append(messages[0].content))
        short, long = ([ChatMessage("user", f"Tell me a {length} story.")] for length in ("short", "long"))
        await asyncio.gather(finish(engine, short, max_tokens=2), finish(engine, long, max_tokens=80))
        await asyncio.sleep(0.1)
        assert read_on == ["Tell me a long story."]
        read = [slot.tokens for slot in engine._read.values()]
        assert read == [await asyncio.to_thread(engine._prompt, messages) for messages in (short, long)]
    finally:
        await engine.close()


async def test_it_does_not_read_on_where_nothing_follows(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_on: list[str] = []
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    try:
        monkeypatch.setattr(engine, "_read_on", lambda messages, *_: read_on.append(messages[0].content))
        await try_out(engine)
        await _ask(engine, _NOTE, "- My cat is called Fox.", 8)
        await finish(engine, HELLO, max_tokens=2)
        await asyncio.sleep(0.1)
        assert read_on == ["Hello"]
    finally:
        await engine.close()


async def test_a_reply_asked_for_before_it_reads_on_is_not_kept_waiting(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    render, ask = engine._render, engine.client.ask
    asked: list[str] = []
    may_read = threading.Event()

    def slowly(connection: http.client.HTTPConnection, messages: list[ChatMessage]) -> Prompt:
        if not messages[-1].content:  # where it reads on
            may_read.wait()
        return render(connection, messages)

    def noting(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
        asked.append(path)
        return ask(connection, path, body)

    try:
        monkeypatch.setattr(engine, "_render", slowly)
        monkeypatch.setattr(engine.client, "ask", noting)
        await finish(engine, HELLO, max_tokens=2)
        reader = engine._reader
        assert reader is not None
        async with aclosing(engine.reply(HELLO, GenerationOptions(max_tokens=40))) as reply:
            await anext(reply)
            may_read.set()
            await asyncio.to_thread(reader.join)
        assert "/completion" not in asked
    finally:
        may_read.set()
        await engine.close()


async def test_reading_on_can_be_stopped_though_one_before_ended_meanwhile(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)
    ask = engine.client.ask
    calls: list[str] = []
    ends: list[str] = []
    begun, may_end, may_read = threading.Semaphore(0), threading.Event(), threading.Event()

    def in_steps(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
        if path != "/completion":
            return ask(connection, path, body)
        calls.append(path)
        first = len(calls) == 1
        if not first:
            begun.release()
            may_read.wait()
        try:
            answer = ask(connection, path, body)
        except OSError:
            ends.append("stopped")
            raise
        if first:
            begun.release()
            may_end.wait()
        ends.append("read")
        return answer

    readers: list[threading.Thread] = []
    try:
        monkeypatch.setattr(engine.client, "ask", in_steps)
        for _ in range(2):
            await finish(engine, HELLO, max_tokens=2)
            assert engine._reader is not None
            readers.append(engine._reader)
            await asyncio.to_thread(begun.acquire)
        may_end.set()
        await asyncio.to_thread(readers[0].join)
        async with aclosing(engine.reply(HELLO, GenerationOptions(max_tokens=40))) as reply:
            await anext(reply)
            may_read.set()
            await asyncio.to_thread(readers[1].join)
        assert ends == ["read", "stopped"]
    finally:
        may_end.set()
        may_read.set()
        await engine.close()


async def test_a_slot_may_be_read_on_while_what_was_kept_is_looked_for(model_path: Path, tmp_path: Path) -> None:
    engine = await LlamaCppResponder.load(model_path, "m@1", context_length=512)

    class Tokens(list[int]):
        def __iter__(self) -> Iterator[int]:
            engine._read[2] = _Read([3], "")
            return super().__iter__()

    try:
        engine._read = {0: _Read(Tokens([1]), ""), 1: _Read([2], "")}
        engine._restore(PromptCache(tmp_path, "m"), [1, 2, 3], "")
        assert list(engine._read) == [0, 1, 2]
    finally:
        await engine.close()
