"""The rolling summary: made by the model while nobody waits, and never in the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from chatbot.engines.base import ChatMessage
from chatbot.errors import ModelError
from storage.summaries import Summary
from tests.conftest import Chatbot
from tests.scripted import listen, scripted_service

NOTES = "The user said:"
GIST = "The assistant said:"


class Note:
    """A model that answers in ten words, and keeps notes of which questions it was told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False

    def __call__(self, messages: Sequence[ChatMessage]) -> str:
        if messages[-1].content.startswith(GIST):
            return "about numbers"
        if not messages[-1].content.startswith(NOTES):
            self.asked.append(messages[0].content)
            return "one two three four five six seven eight nine ten"
        if self.fails:
            raise ModelError("no notes today")
        numbers = {word for word in messages[-1].content.split() if word.startswith("#")}
        return "\n".join(sorted(numbers))


async def test_a_long_conversation_is_told_in_short_and_goes_on_with_that() -> None:
    model = Note()
    async with scripted_service(model, context_length=300, max_tokens=30, system="Be kind.") as service:
        here = None
        for number in range(40):
            started, _ = await listen(service.send(here, f"question #{number:02}"))
            here = started.conversation
            await service.settle()
        assert here is not None
        kept = await service.store.summaries.of_conversation(here)
        assert len(kept) > 1
        assert kept[-1].model == "fake@1"
        facts = [line for line in kept[-1].text.splitlines() if line.startswith("#")]
        assert facts == [f"#{number:02}" for number in range(len(facts))]
        assert "The assistant: about numbers" in kept[-1].text
        context = await service.context(here, "and now?")
        assert context.summary is not None
        assert f"Summary of what was said before:\n{context.summary}" in context.messages[0].content
        told = context.summary.count("#")
        assert context.messages[1].content == f"question #{told:02}"
        # Nothing lies between what is told in short and what is sent as it was said, in any turn.
        assert "#00" in model.asked[-1]
        path = await service.conversations.path((await service.conversations.get(here)).leaf_id)
        assert [m.summary for m in path if m.summary] == [summary.text for summary in kept]


async def test_where_the_model_makes_no_summary_the_oldest_turns_are_left_out() -> None:
    model = Note()
    model.fails = True
    async with scripted_service(model, context_length=300, max_tokens=30, system="Be kind.") as service:
        here = None
        for number in range(30):
            started, _ = await listen(service.send(here, f"question #{number:02}"))
            here = started.conversation
            await service.settle()
        assert here is not None
        assert await service.store.summaries.of_conversation(here) == []
        assert (await service.context(here)).messages[0].content == "Be kind."


async def test_the_next_message_does_not_wait_for_the_summary() -> None:
    model = Note()
    async with scripted_service(model, delay=0.002, context_length=300, max_tokens=30) as service:
        here = None
        for number in range(20):
            started, _ = await listen(service.send(here, f"question #{number:02}"))
            here = started.conversation
        assert service.summarising
        running = asyncio.create_task(listen(service.send(here, "quick")))
        await asyncio.sleep(0.01)
        assert not service.summarising
        await running


async def test_what_is_forgotten_stands_in_no_summary() -> None:
    model = Note()
    async with scripted_service(model, context_length=300, max_tokens=30) as service:
        first, _ = await listen(service.send(None, "question #00"))
        here = first.conversation
        for number in range(1, 20):
            await listen(service.send(here, f"question #{number:02}"))
            await service.settle()
        branch, _ = await listen(service.edit(here, first.message, "another #99"))
        other = Summary(branch.reply, here, "of the other branch", "m@1", datetime.now(UTC))
        assert await service.store.summaries.add(other, [branch.message, branch.reply], None)
        before = await service.store.summaries.of_conversation(here)
        assert any("#00" in kept.text for kept in before)
        await service.delete_message(first.message)
        assert await service.store.summaries.of_conversation(here) == [other]  # all others covered it


async def test_what_is_forgotten_while_a_summary_is_being_made_of_it_is_in_none() -> None:
    model = Note()
    async with scripted_service(model, delay=0.002, context_length=300, max_tokens=30) as service:
        first, _ = await listen(service.send(None, "question #00"))
        for number in range(1, 20):
            await listen(service.send(first.conversation, f"question #{number:02}"))
        assert service.summarising
        service.models.one._delay = 30  # type: ignore[attr-defined]  # whoever does not stop it waits
        await service.delete_message(first.message)
        assert not service.summarising
        for kept in await service.store.summaries.of_conversation(first.conversation):
            assert "#00" not in kept.text


@pytest.mark.parametrize("forgotten", ["what it was made from", "the one before", "nothing"])
async def test_a_summary_of_what_was_forgotten_meanwhile_is_not_kept(forgotten: str) -> None:
    async with scripted_service() as service:
        first, _ = await listen(service.send(None, "one"))
        second, _ = await listen(service.send(first.conversation, "two"))
        summaries, forgetting = service.store.summaries, service.store.forgetting
        now = datetime.now(UTC)
        earlier = Summary(first.reply, first.conversation, "said one", "m@1", now)
        assert await summaries.add(earlier, [first.message, first.reply], None)
        if forgotten == "what it was made from":
            await forgetting.message(second.message)
        elif forgotten == "the one before":  # goes with what it covers
            await forgetting.message(first.message)
        later = Summary(second.reply, first.conversation, "said one and two", "m@1", now)
        kept = await summaries.add(later, [second.message, second.reply], first.reply)
        assert kept == (forgotten == "nothing")
        assert (later in await summaries.of_conversation(first.conversation)) == kept


@pytest.mark.usefixtures("model_path")
def test_the_command_line_shows_what_would_be_sent(chatbot: Chatbot) -> None:
    chatbot("ask", "My name is Ada.", "--model", "fake")
    done = chatbot("ask", "--continue", "Who am I?", "--show-context", "--json")
    sent = json.loads(done.stdout)
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["messages"][-1]["content"] == "Who am I?"
    assert sent["prompt_tokens"] > 20
    text = chatbot("ask", "--continue", "Who am I?", "--show-context", "--model", "fake").stdout
    assert "[user]\nMy name is Ada." in text
    shown = json.loads(chatbot("conversations", "list", "--json").stdout)
    said = json.loads(chatbot("conversations", "show", shown[0]["id"], "--json").stdout)
    assert len(said["messages"]) == 2
