"""What is particular to llama.cpp, on the real model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.llamacpp import LlamaCppResponder, _Read
from chatbot.errors import ModelError


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
    for speculate in (True, False):
        engine = await LlamaCppResponder.load(model_path, "m@1", context_length=2048, speculate=speculate)
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
        monkeypatch.setattr(engine, "_read_on", lambda messages, generation: read_on.append(messages[0].content))
        short, long = ([ChatMessage("user", f"Tell me a {length} story.")] for length in ("short", "long"))
        engine._read[0] = _Read([1, 2, 3], "")
        await asyncio.gather(finish(engine, short, max_tokens=2), finish(engine, long, max_tokens=80))
        await asyncio.sleep(0.1)
        assert read_on == ["Tell me a long story."]
        assert not engine._read, "which slot holds what is not known"
    finally:
        await engine.close()
