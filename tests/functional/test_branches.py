"""Editing, asking again, going on, switching, forking: each makes something beside what was there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import count

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from chatbot.chat import ChatService
from chatbot.engines.base import ChatMessage
from chatbot.events import ConversationChanged, Notice, TextDelta
from storage.errors import NotFoundError
from storage.summaries import Summary
from tests.scripted import failure, listen, scripted_service


class Numbered:
    """A model that says a number, another each time, and what it was sent."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.heard: list[ChatMessage] = []

    def __call__(self, messages: Sequence[ChatMessage]) -> str:
        self.heard = list(messages)
        return f"reply {next(self._numbers)}"


@pytest.fixture
def model() -> Numbered:
    return Numbered()


@pytest.fixture
async def service(model: Numbered, either_database: str) -> AsyncIterator[ChatService]:
    async with scripted_service(model, system="") as opened:
        yield opened


async def shown(service: ChatService, conversation: str) -> list[tuple[str, int, int]]:
    leaf = (await service.conversations.get(conversation)).leaf_id
    return [(m.text, m.position, m.siblings) for m in await service.conversations.path(leaf)]


async def command(service: ChatService, conversation: str | None, text: str) -> list[object]:
    async with aclosing(service.send(conversation, text)) as events:
        return [event async for event in events]


async def test_another_reply_stands_beside_the_one_before(service: ChatService, model: Numbered) -> None:
    first, _ = await listen(service.send(None, "hello"))
    here = first.conversation
    again, said = await listen(service.regenerate(here))
    assert said.text == "reply 2"
    assert again.branched
    assert [m.content for m in model.heard] == ["hello"]
    assert await shown(service, here) == [("hello", 1, 1), ("reply 2", 2, 2)]
    await service.switch(here, first.reply)
    assert await shown(service, here) == [("hello", 1, 1), ("reply 1", 1, 2)]


async def test_an_edited_message_begins_another_branch_and_the_model_hears_that_branch(
    service: ChatService, model: Numbered
) -> None:
    first, _ = await listen(service.send(None, "one"))
    here = first.conversation
    second, _ = await listen(service.send(here, "two"))
    await listen(service.edit(here, first.message, "uno"))
    assert [m.content for m in model.heard] == ["uno"]
    assert await shown(service, here) == [("uno", 2, 2), ("reply 3", 1, 1)]
    await listen(service.send(here, "due"))
    assert [m.content for m in model.heard] == ["uno", "reply 3", "due"]
    assert await service.switch(here, first.message) == second.reply
    assert [text for text, _, _ in await shown(service, here)] == ["one", "reply 1", "two", "reply 2"]
    assert len(await service.conversations.messages(here)) == 8


async def test_a_cut_reply_is_gone_on_with_beside_itself() -> None:
    words = " ".join(f"word{number}" for number in range(30))
    async with scripted_service(lambda messages: words, max_tokens=10) as service:
        first, cut = await listen(service.send(None, "talk"))
        assert (cut.reason, cut.text) == ("length", " ".join(words.split()[:10]))
        here = first.conversation
        pieces = []
        async with aclosing(service.resume(here)) as events:
            async for heard in events:
                if isinstance(heard, TextDelta):
                    pieces.append(heard.text)
        assert pieces[0] == cut.text
        assert "".join(pieces) == " ".join(words.split()[:20])
        assert await shown(service, here) == [("talk", 1, 1), (" ".join(words.split()[:20]), 2, 2)]
        _, whole = await listen(service.resume(here))
        assert (whole.reason, whole.text) == ("stop", words)


async def test_a_reply_that_is_being_gone_on_with_keeps_all_that_came_when_it_is_stopped() -> None:
    words = " ".join(f"word{number}" for number in range(300))
    async with scripted_service(lambda messages: words, delay=0.001, max_tokens=40) as service:
        first, cut = await listen(service.send(None, "talk"))
        pieces: list[str] = []
        async with aclosing(service.resume(first.conversation)) as events:
            async for heard in events:
                if isinstance(heard, TextDelta):
                    pieces.append(heard.text)
                    if len(pieces) == 5:
                        await service.stop(first.conversation)
        text, position, siblings = (await shown(service, first.conversation))[-1]
        assert text.startswith(cut.text)
        assert text == "".join(pieces)
        assert (position, siblings) == (2, 2)


async def test_switching_goes_down_to_what_was_said_last(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "a"))
    here = first.conversation
    await listen(service.send(here, "b"))
    third, _ = await listen(service.regenerate(here))
    await listen(service.edit(here, first.message, "z"))
    assert await service.switch(here, first.message) == third.reply
    with pytest.raises(NotFoundError):
        await service.switch(here, "nonesuch")


async def test_a_fork_has_the_branch_alone_and_a_duplicate_everything(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "a"))
    here = first.conversation
    await listen(service.send(here, "b"))
    await listen(service.regenerate(here, first.reply))
    await service.pin(first.message, True)
    whole = await service.duplicate(here)
    fork = await service.fork(here, first.reply)
    assert await shown(service, fork) == [("a", 1, 1), ("reply 1", 1, 1)]
    assert await shown(service, whole) == await shown(service, here)
    copied = await service.conversations.messages(whole)
    original = await service.conversations.messages(here)
    assert [(m.text, m.position, m.siblings, m.pinned) for m in copied] == [
        (m.text, m.position, m.siblings, m.pinned) for m in original
    ]
    assert not {m.id for m in copied} & {m.id for m in original}
    await listen(service.send(fork, "c"))
    assert len(await shown(service, here)) == 2


async def test_the_summaries_of_what_is_copied_come_along_and_no_others(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "a"))
    here = first.conversation
    second, _ = await listen(service.send(here, "b"))
    for reply in (first.reply, second.reply):
        summary = Summary(reply, here, f"up to {reply}", "m@1", datetime.now(UTC))
        assert await service.store.summaries.add(summary, [reply], None)
    for copied, covered in (
        (await service.duplicate(here), [first.reply, second.reply]),
        (await service.fork(here, first.reply), [first.reply]),
    ):
        path = await service.conversations.path((await service.conversations.get(copied)).leaf_id)
        assert [m.summary for m in path if m.role == "assistant"] == [f"up to {reply}" for reply in covered]
    assert len(await service.store.summaries.of_conversation(here)) == 2


async def test_the_commands_of_branches_work_from_any_front_end(service: ChatService) -> None:
    here = (await listen(service.send(None, "hello")))[0].conversation
    await listen(service.send(here, "/retry"))
    await listen(service.send(here, "/edit goodbye"))
    assert await shown(service, here) == [("goodbye", 2, 2), ("reply 3", 1, 1)]
    assert await command(service, here, "/previous") == [ConversationChanged(here)]
    assert await shown(service, here) == [("hello", 1, 2), ("reply 2", 2, 2)]
    await command(service, here, "/next")
    assert await shown(service, here) == [("hello", 1, 2), ("reply 1", 1, 2)]
    [changed] = await command(service, here, "/fork")
    assert isinstance(changed, ConversationChanged)
    assert changed.conversation != here
    assert isinstance((await command(service, here, "/good because"))[-1], Notice)
    [said] = await service.store.ratings.of_conversation(here)
    assert (said.value, said.note) == (1, "because")


@pytest.mark.parametrize("text", ["/retry", "/edit x", "/continue", "/fork", "/pin", "/good", "/next"])
async def test_where_nothing_was_said_yet_a_command_says_so(service: ChatService, text: str) -> None:
    assert "empty" in await failure(service.send(None, text))


async def test_only_what_one_said_oneself_is_edited(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "hello"))
    assert "yourself" in await failure(service.edit(first.conversation, first.reply, "x"))
    assert "/edit TEXT" in await failure(service.send(first.conversation, "/edit"))
    assert len(await service.conversations.messages(first.conversation)) == 2


async def test_feedback_is_one_a_person_and_may_change(service: ChatService) -> None:
    first, _ = await listen(service.send(None, "hello"))
    someone = await service.store.people.get_or_add("telegram", "42", "Ada")
    assert (await service.store.people.get_or_add("telegram", "42")).id == someone.id
    await service.rate(first.reply, 1, "fine")
    await service.rate(first.reply, -1, "wrong after all")
    await service.rate(first.reply, 1, person=someone.id)
    given = await service.store.ratings.of_conversation(first.conversation)
    assert {(f.person_id, f.value, f.note) for f in given} == {
        ("local", -1, "wrong after all"),
        (someone.id, 1, ""),
    }
    assert (await service.conversations.message(first.reply)).rating == -1
    await service.rate(first.reply, 0)
    assert (await service.conversations.message(first.reply)).rating == 0
    with pytest.raises(NotFoundError):
        await service.rate(first.message, 1)


async def test_a_branch_is_shown_in_one_query_that_reads_what_is_shown() -> None:
    async with scripted_service() as service:
        first, _ = await listen(service.send(None, "hello"))
        for _ in range(5):
            await listen(service.regenerate(first.conversation))
        asked: list[tuple[str, tuple[object, ...]]] = []

        def note(
            connection: object, cursor: object, statement: str, values: tuple[object, ...], *rest: object
        ) -> None:
            asked.append((statement, values))

        event.listen(Engine, "before_cursor_execute", note)
        try:
            path = await service.conversations.path(first.reply, 20)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        assert [(m.position, m.siblings) for m in path] == [(1, 1), (1, 6)]
        [query] = [one for one in asked if not one[0].startswith("BEGIN")]
        async with service.store.database.read() as connection:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query[0]}", query[1])
            steps = [row[3] for row in plan]
        assert not [step for step in steps if step.startswith("SCAN messages")], steps


async def test_two_branches_at_once_in_one_conversation_are_refused_in_a_sentence() -> None:
    async with scripted_service(delay=0.01) as service:
        first, _ = await listen(service.send(None, "hello"))
        running = asyncio.create_task(listen(service.regenerate(first.conversation)))
        await asyncio.sleep(0.01)
        assert "still coming" in await failure(service.edit(first.conversation, None, "x"))
        await running
