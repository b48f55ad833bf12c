"""What llama.cpp has read of a long conversation is still read after a restart, and gone where it was forgotten."""

from __future__ import annotations

from array import array
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.engines import llamacpp, prompt_cache
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.prompt_cache import WORTH_KEEPING, KeptPrompt, PromptCache, forget_prompts

CONTEXT = 1024
LONG = [ChatMessage("user", "The ship is small and the sea is wide. " * 50 + "What is small?")]
ANOTHER = [ChatMessage("user", "Bread is made of flour, water and salt. " * 50 + "What is bread made of?")]
OPTIONS = GenerationOptions(max_tokens=12, temperature=0.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(llamacpp, "KEEPING_S", 60.0)  # a busy machine may need more than a person would wait
    return tmp_path / "prompts"


async def _load(model_path: Path, folder: Path, slots: int = 2) -> LlamaCppResponder:
    return await LlamaCppResponder.load(
        model_path,
        "model",
        context_length=CONTEXT,
        slots=slots,
        speculate=False,  # what is guessed is computed together, and rounds differently
        prompts=PromptCache(folder, "model"),
    )


async def _say(responder: LlamaCppResponder, messages: list[ChatMessage]) -> tuple[str, Completion]:
    said = [piece async for piece in responder.reply(messages, OPTIONS)]
    assert isinstance(said[-1], Completion)
    return "".join(piece for piece in said if isinstance(piece, str)), said[-1]


async def test_a_long_conversation_goes_on_after_a_restart_without_being_read_again(
    model_path: Path, folder: Path
) -> None:
    before = await _load(model_path, folder)
    text, first = await _say(before, LONG)
    assert first.cached_tokens == 0
    going_on = [*LONG, ChatMessage("assistant", text), ChatMessage("user", "And what is wide?")]
    in_one_go, _ = await _say(before, going_on)
    await before.close()

    after = await _load(model_path, folder)
    try:
        restarted, second = await _say(after, going_on)
        assert restarted == in_one_go
        assert second.cached_tokens > first.prompt_tokens
    finally:
        await after.close()
    assert len(list(folder.glob("*/*.bin"))) == 1  # the longer one is in the place of the shorter


async def _stop(responder: LlamaCppResponder, messages: list[ChatMessage]) -> None:
    """Let it say a word, once it has read on."""
    assert responder._reader is not None
    responder._reader.join()
    async with aclosing(responder.reply(messages, OPTIONS)) as reply:
        await anext(reply)


async def test_a_stopped_reply_takes_nothing_from_other_conversations(model_path: Path, folder: Path) -> None:
    before = await _load(model_path, folder)
    text, first = await _say(before, LONG)
    await _stop(before, ANOTHER)
    await before.close()

    after = await _load(model_path, folder)
    try:
        going_on = [*LONG, ChatMessage("assistant", text), ChatMessage("user", "And what is wide?")]
        _, second = await _say(after, going_on)
        assert second.cached_tokens > first.prompt_tokens
    finally:
        await after.close()


async def test_what_was_read_over_is_not_kept_as_what_it_was(model_path: Path, folder: Path) -> None:
    responder = await _load(model_path, folder, slots=1)
    await _say(responder, LONG)
    await _stop(responder, ANOTHER)
    await responder.close()
    assert not list(folder.glob("*/*"))


async def test_what_nothing_follows_is_not_kept(model_path: Path, folder: Path) -> None:
    responder = await _load(model_path, folder)
    async for _ in responder.reply(LONG, replace(OPTIONS, followed=False)):
        pass
    await responder.close()
    assert not list(folder.glob("*/*"))


async def test_what_was_forgotten_is_erased_and_kept_by_no_process_that_had_read_it(
    model_path: Path, folder: Path
) -> None:
    first = await _load(model_path, folder)
    await _say(first, LONG)
    await first.close()
    assert list(folder.glob("*/*.bin"))

    running = await _load(model_path, folder)
    await _say(running, LONG)
    forget_prompts(folder)
    assert not list(folder.glob("*/*"))
    await running.close()
    assert not list(folder.glob("*/*"))


async def test_a_file_that_was_cut_short_is_not_given_to_llama_cpp(model_path: Path, folder: Path) -> None:
    first = await _load(model_path, folder)
    await _say(first, LONG)
    await first.close()
    (kept,) = folder.glob("*/*.bin")
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])

    second = await _load(model_path, folder)
    try:
        _, completion = await _say(second, LONG)
        assert completion.cached_tokens == 0
    finally:
        await second.close()


async def test_short_conversations_are_not_worth_a_file(model_path: Path, folder: Path) -> None:
    responder = await _load(model_path, folder)
    _, completion = await _say(responder, [ChatMessage("user", "What is small?")])
    assert completion.prompt_tokens < WORTH_KEEPING
    await responder.close()
    assert not list(folder.glob("*/*"))


def test_another_conversation_with_the_same_beginning_keeps_its_own_file(folder: Path) -> None:
    prompts = PromptCache(folder, "model")
    for tokens in ([1, 2, 3], [1, 2, 4, 5], [1, 2, 4, 5, 6]):
        _keep(prompts, tokens)
    best, length = prompts.best([1, 2, 4, 5, 9])
    assert best is not None
    assert (best.tokens, length) == ([1, 2, 4, 5, 6], 4)
    assert sorted(len(list(folder.glob(pattern))) for pattern in ("*/*.bin", "*/*.json")) == [2, 2]


def test_a_file_above_the_limit_is_kept_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "_MOST_BYTES", 20)
    prompts = PromptCache(folder, "model")
    for tokens in ([1, 2, 3], [4, 5, 6, 7, 8, 9]):
        _keep(prompts, tokens)
        best, length = prompts.best(tokens)
        assert best is not None
        assert length == len(tokens)
        assert len(list(folder.glob("*/*.bin"))) == 1


def _keep(prompts: PromptCache, tokens: list[int]) -> None:
    file = prompts.new_file()
    file.write_bytes(b"a header" + array("i", tokens).tobytes() + b"state")
    prompts.keep(KeptPrompt(file, tokens), prompts.generation())
