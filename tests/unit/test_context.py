"""The system prompt always, then as many whole turns as fit."""

from __future__ import annotations

import pytest

from chatbot.context import build_context
from chatbot.engines.base import ChatMessage
from chatbot.engines.fake import ScriptedResponder
from chatbot.errors import MessageError
from storage.conversations import Conversations, Status


async def say(conversations: Conversations, conversation: str, text: str, reply: str, status: Status) -> str:
    turn = await conversations.add_turn(conversation, text)
    said, answer = turn.said, turn.reply
    await conversations.end_reply(answer.id, reply, status)
    return said.id


@pytest.fixture
async def conversation(conversations: Conversations) -> str:
    return (await conversations.create("Be kind.")).id


async def test_as_many_whole_turns_as_fit_are_sent_and_not_one_fewer(
    conversations: Conversations, conversation: str
) -> None:
    for number in range(60):
        await say(conversations, conversation, f"question {number}", "one two three", "complete")
    leaf = await say(conversations, conversation, "the newest", "", "streaming")
    for length in range(60, 700, 7):
        responder = ScriptedResponder(context_length=length)
        context = await build_context(conversations, leaf, "Be kind.", responder, 20)
        assert context.prompt_tokens == await responder.count_tokens(context.messages) <= length - 20
        assert context.messages[0] == ChatMessage("system", "Be kind.")
        assert context.messages[-1] == ChatMessage("user", "the newest")
        roles = [message.role for message in context.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        if len(roles) < 121:
            older = [ChatMessage("user", "question 0"), ChatMessage("assistant", "one two three")]
            assert await responder.count_tokens([*older, *context.messages]) > length - 20


async def test_the_room_for_the_reply_is_never_more_than_half_the_context(
    conversations: Conversations, conversation: str
) -> None:
    leaf = await say(conversations, conversation, "hello", "", "streaming")
    context = await build_context(conversations, leaf, "", ScriptedResponder(context_length=100), 1000)
    assert context.reply_tokens == 100 - context.prompt_tokens


async def test_a_message_that_cannot_fit_is_refused_in_a_sentence(
    conversations: Conversations, conversation: str
) -> None:
    leaf = await say(conversations, conversation, " ".join(["word"] * 500), "", "streaming")
    with pytest.raises(MessageError, match="503 tokens"):
        await build_context(conversations, leaf, "", ScriptedResponder(context_length=256), 20)


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        ("failed", ["second"]),
        ("stopped", ["first\n\nsecond"]),
        ("interrupted", ["first\n\nsecond"]),
    ],
)
async def test_turns_without_a_word_of_reply_do_not_break_the_roles(
    conversations: Conversations, conversation: str, status: Status, sent: list[str]
) -> None:
    await say(conversations, conversation, "first", "", status)
    leaf = await say(conversations, conversation, "second", "", "streaming")
    context = await build_context(conversations, leaf, "", ScriptedResponder(), 20)
    assert [message.content for message in context.messages] == sent


async def test_what_came_of_a_cut_reply_is_sent(conversations: Conversations, conversation: str) -> None:
    await say(conversations, conversation, "first", "half a rep", "interrupted")
    leaf = await say(conversations, conversation, "second", "", "streaming")
    context = await build_context(conversations, leaf, "", ScriptedResponder(), 20)
    assert [message.content for message in context.messages] == ["first", "half a rep", "second"]
