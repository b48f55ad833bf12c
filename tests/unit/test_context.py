"""The system prompt always, then as many whole turns as fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chatbot.context import build_context
from chatbot.engines.base import ChatMessage
from chatbot.engines.fake import ScriptedResponder
from chatbot.errors import MessageError
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.conversations import Conversations
from storage.records import Status
from storage.summaries import Summary


async def say(conversations: Conversations, conversation: str, text: str, reply: str, status: Status) -> str:
    turn = await conversations.add_turn(conversation, text)
    said, answer = turn.said, turn.reply
    await conversations.end_reply(answer.id, reply, status)
    return said.id


@pytest.fixture
async def store(home: Path) -> AsyncIterator[Store]:
    async with open_store(Settings.load()) as opened:
        yield opened


@pytest.fixture
def conversations(store: Store) -> Conversations:
    return store.conversations


@pytest.fixture
async def conversation(conversations: Conversations) -> str:
    return (await conversations.create("Be kind.")).id


async def test_as_many_whole_turns_as_fit_are_sent_and_not_one_fewer(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    for number in range(60):
        await say(conversations, conversation, f"question {number}", "one two three", "complete")
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    for length in range(60, 700, 7):
        responder = ScriptedResponder(context_length=length)
        context = await build_context(store, leaf, "Be kind.", responder, 20)
        assert context.prompt_tokens == await responder.count_tokens(context.messages) <= length - 20
        assert context.messages[0] == ChatMessage("system", "Be kind.")
        assert context.messages[-1] == ChatMessage("user", "the newest")
        roles = [message.role for message in context.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        if len(roles) < 121:
            older = [ChatMessage("user", "question 0"), ChatMessage("assistant", "one two three")]
            assert await responder.count_tokens([*older, *context.messages]) > length - 20


async def test_nothing_is_read_for_what_begins_a_branch_and_the_same_is_sent(
    store: Store, conversations: Conversations, conversation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (await conversations.add_turn(conversation, "hello")).said
    read = await build_context(store, said.id, "Be kind.", ScriptedResponder(), 20)
    monkeypatch.delattr(Conversations, "pinned_and_path")
    assert await build_context(store, said.id, "Be kind.", ScriptedResponder(), 20, first=said) == read


async def test_the_room_for_the_reply_is_never_more_than_half_the_context(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    leaf = await say(conversations, conversation, "hello", "", "streaming")
    context = await build_context(store, leaf, "", ScriptedResponder(context_length=100), 1000)
    assert context.reply_tokens == 100 - context.prompt_tokens


async def test_a_message_that_cannot_fit_is_refused_in_a_sentence(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    leaf = await say(conversations, conversation, " ".join(["word"] * 500), "", "streaming")
    with pytest.raises(MessageError, match="503 tokens"):
        await build_context(store, leaf, "", ScriptedResponder(context_length=256), 20)


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        ("failed", ["second"]),
        ("stopped", ["first\n\nsecond"]),
        ("interrupted", ["first\n\nsecond"]),
    ],
)
async def test_turns_without_a_word_of_reply_do_not_break_the_roles(
    store: Store, conversations: Conversations, conversation: str, status: Status, sent: list[str]
) -> None:
    await say(conversations, conversation, "first", "", status)
    leaf = await say(conversations, conversation, "second", "", "streaming")
    context = await build_context(store, leaf, "", ScriptedResponder(), 20)
    assert [message.content for message in context.messages] == sent


async def test_what_came_of_a_cut_reply_is_sent(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    await say(conversations, conversation, "first", "half a rep", "interrupted")
    leaf = await say(conversations, conversation, "second", "", "streaming")
    context = await build_context(store, leaf, "", ScriptedResponder(), 20)
    assert [message.content for message in context.messages] == ["first", "half a rep", "second"]


async def tell(store: Store, message: str, text: str) -> None:
    conversation = (await store.conversations.message(message)).conversation_id
    summary = Summary(message, conversation, text, "m@1", datetime.now(UTC))
    assert await store.summaries.add(summary, [message], None)


async def replies(store: Store, leaf: str) -> list[str]:
    return [message.id for message in await store.conversations.path(leaf) if message.role == "assistant"]


async def test_a_summary_stands_for_what_does_not_fit_and_leaves_the_most_as_it_was_said(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    for number in range(40):
        await say(conversations, conversation, f"question {number}", "one two three", "complete")
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    said = await replies(store, leaf)
    for number in (10, 20, 30):
        await tell(store, said[number], f"told up to {number}")
    sent: list[tuple[str | None, int]] = []
    for length in (500, 360, 260, 150, 100):
        context = await build_context(store, leaf, "Be kind.", ScriptedResponder(context_length=length), 20)
        assert context.prompt_tokens <= context.budget == length - 20
        assert (context.summary or "") in context.messages[0].content
        sent.append((context.summary, len(context.messages) // 2))
    assert sent == [
        (None, 41),
        ("told up to 10", 30),
        ("told up to 20", 20),
        ("told up to 30", 10),
        ("told up to 30", sent[-1][1]),
    ]
    assert 1 < sent[-1][1] < 10


async def test_a_summary_of_one_branch_is_none_of_another(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    first = await say(conversations, conversation, "first " * 30, "one", "complete")
    await say(conversations, conversation, "second", "two", "complete")
    leaf = await say(conversations, conversation, "third", "", "streaming")
    await tell(store, (await replies(store, leaf))[1], "in short")
    small = ScriptedResponder(context_length=50)
    assert (await build_context(store, leaf, "", small, 20)).summary == "in short"
    other = (await conversations.add_turn(conversation, "another " * 20, beside=first)).said
    context = await build_context(store, other.id, "", small, 20)
    assert context.summary is None
    assert [message.content for message in context.messages] == ["another " * 20]


async def test_an_old_summary_is_found_beyond_what_is_read(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    for number in range(60):
        await say(conversations, conversation, f"question {number}", "one two three", "complete")
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    await tell(store, (await replies(store, leaf))[3], "told long ago")
    context = await build_context(store, leaf, "", ScriptedResponder(context_length=100), 20)
    assert context.summary == "told long ago"
    assert context.prompt_tokens <= 80


async def test_what_is_pinned_is_always_sent_word_for_word(
    store: Store, conversations: Conversations, conversation: str
) -> None:
    pinned = await say(conversations, conversation, "My name is Ada.", "Hello Ada", "complete")
    for number in range(60):
        await say(conversations, conversation, f"question {number}", "one two three", "complete")
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    await conversations.pin(pinned, True)
    small = ScriptedResponder(context_length=120)
    context = await build_context(store, leaf, "Be kind.", small, 20)
    assert "User: My name is Ada." in context.messages[0].content
    assert context.pinned == (pinned,)
    assert context.prompt_tokens == await small.count_tokens(context.messages) <= 100
    whole = await build_context(store, leaf, "Be kind.", ScriptedResponder(), 20)
    assert whole.pinned == ()
    assert whole.messages[0].content == "Be kind."
    await conversations.pin(pinned, False)
    assert (await build_context(store, leaf, "Be kind.", small, 20)).pinned == ()
    long = await say(conversations, conversation, "word " * 200, "noted", "complete")
    await conversations.pin(long, True)
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    with pytest.raises(MessageError, match="with what is pinned"):
        await build_context(store, leaf, "", small, 20)
