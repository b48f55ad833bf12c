"""The terminal chat at awkward moments."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from textual import events

from chatbot.commands import COMMANDS
from chatbot.events import Finished, Usage
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.conversations import Conversations
from storage.records import Conversation, Message
from tests.functional.test_tui import Driven, a_long_conversation, driven
from tui.dialogs import DeleteDialog
from tui.message import ReplyView
from tui.status import StatusLine, gauge
from tui.transcript import Transcript

__all__ = ["driven"]


async def test_two_messages_sent_before_anything_is_open_make_one_conversation(driven: Driven) -> None:
    driven.may_open.clear()
    async with driven.run():
        await driven.say("one")
        await driven.say("two")
        driven.may_open.set()
        await driven.until(lambda: driven.replies() == ["You said: one"])
        await driven.pilot.pause(0.3)
        assert driven.sidebar.option_count == 1
        assert driven.composer.text == "two"


async def test_two_messages_sent_in_a_row_make_one_conversation(driven: Driven) -> None:
    async with driven.run():
        driven.composer.put("one")
        driven.composer.post_message(driven.composer.Submitted("one"))
        driven.composer.post_message(driven.composer.Submitted("two"))
        await driven.until(lambda: "You said: one" in driven.replies())
        await driven.pilot.pause(0.3)
        assert driven.sidebar.option_count == 1


async def test_what_of_a_reply_is_stored_before_it_is_shown_is_shown_once(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Conversations.path

    async def late(*asked: Any, **named: Any) -> list[Message]:
        """As a machine under load reads it: the first words of the reply are stored by then."""
        found = await path(*asked, **named)
        return [replace(one, text="You said") if one.status == "streaming" else one for one in found]

    async with driven.run():
        monkeypatch.setattr(Conversations, "path", late)
        await driven.say("one")
        await driven.until(lambda: driven.status == "ready" and driven.replies() not in ([], [""]))
        assert driven.replies() == ["You said: one"]


async def test_a_large_paste_is_removed_as_one(driven: Driven) -> None:
    async with driven.run():
        driven.app.post_message(events.Paste("many words " * 5_000))
        await driven.until(lambda: driven.composer.text)
        await driven.pilot.press("backspace")
        assert driven.composer.text == ""


async def test_page_keys_scroll_the_transcript_from_the_composer(driven: Driven) -> None:
    await a_long_conversation(30)
    async with driven.run():
        transcript = driven.app.chat.query_one(Transcript)
        await driven.until(lambda: transcript.scroll_offset.y > 0)
        end = transcript.scroll_offset.y
        await driven.pilot.press("pageup")
        await driven.until(lambda: transcript.scroll_offset.y < end)


async def test_reading_above_is_not_disturbed_by_the_reply(driven: Driven) -> None:
    await a_long_conversation(10)
    async with driven.run():
        transcript = driven.app.chat.query_one(Transcript)
        await driven.say("long")
        await driven.until(lambda: "word3" in driven.replies()[-1])
        transcript.scroll_to(y=3, animate=False)
        await driven.until(lambda: "word200" in driven.replies()[-1])
        assert transcript.scroll_offset.y == 3


async def test_a_draft_is_kept_beside_what_is_typed_before_it_could_be_read(driven: Driven) -> None:
    async with open_store(Settings.load()) as store:
        await store.conversations.save_draft("new", "half a thought")
    driven.may_open.clear()
    async with driven.run():
        await driven.pilot.press(*"early")
        driven.may_open.set()
        await driven.until(lambda: driven.status == "ready")
        await driven.pilot.pause(0.6)
        assert "half a thought" in driven.composer.text
        assert "early" in driven.composer.text


async def test_a_command_picked_before_anything_is_open_waits(driven: Driven) -> None:
    driven.may_open.clear()
    async with driven.run():
        driven.app.chat.offer(COMMANDS["help"])
        await driven.pilot.pause(0.1)
        driven.may_open.set()
        await driven.until(driven.notices)
        assert "/rename TITLE" in driven.notices()[0]


async def test_what_is_typed_while_another_conversation_opens_is_there_afterwards(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        release = asyncio.Event()
        asked = driven.app.chat._service.conversations.path  # type: ignore[union-attr]  # it is open by now

        async def slow(*arguments: Any) -> Any:
            await release.wait()
            return await asked(*arguments)

        driven.app.chat._service.conversations.path = slow  # type: ignore[union-attr,method-assign]  # for this test
        await driven.pilot.press("ctrl+n")
        await driven.pilot.press(*"typed")
        release.set()
        await driven.until(lambda: not driven.said())
        assert driven.composer.text == "typed"


@pytest.mark.parametrize("sent", [True, False])
async def test_leaving_before_anything_is_open_keeps_what_was_typed(driven: Driven, sent: bool) -> None:
    driven.may_open.clear()
    async with driven.run():
        await driven.pilot.press(*"precious", *(["enter"] if sent else []))
        await driven.pilot.press("ctrl+q")
        driven.may_open.set()
    async with open_store(Settings.load()) as store:
        assert await store.conversations.draft("new") == "precious"


async def test_a_text_refused_because_its_conversation_is_gone_becomes_a_new_draft(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        async with open_store(Settings.load()) as elsewhere:
            for conversation in await elsewhere.conversations.list():
                await elsewhere.forgetting.conversation(conversation.id)
        await driven.say("unsent")
        await driven.until(lambda: driven.composer.text == "unsent")
        await driven.pilot.press("ctrl+n")
        await driven.until(lambda: not driven.said())
        assert driven.composer.text == "unsent"


async def test_two_chats_leave_each_others_draft_alone(driven: Driven) -> None:
    async with driven.run():
        await driven.pilot.press(*"mine")
        async with open_store(Settings.load()) as store:
            await driven.until(lambda: driven.app.chat._drafts is not None)
            await driven.app.chat.keep_draft()
            await store.conversations.save_draft("new", "")  # another chat began its conversation
    async with open_store(Settings.load()) as store:
        assert await store.conversations.draft("new") == "mine"


@pytest.mark.parametrize("key", ["ctrl+w", "backspace", "delete", "ctrl+u"])
async def test_no_key_damages_the_mark_of_a_large_paste(driven: Driven, key: str) -> None:
    async with driven.run():
        driven.app.chat.post_message(events.Paste("x" * 30_000))
        await driven.until(lambda: driven.composer.text)
        if key == "delete":
            await driven.pilot.press("home")
        await driven.pilot.press(key)
        assert driven.composer.whole_text in ("", "x" * 30_000)
        assert driven.composer.text == "" or driven.composer.whole_text


async def test_the_delete_command_asks_first(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.say("/delete")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("n")
        await driven.until(lambda: driven.app.screen is driven.app.chat)
        assert driven.said() == ["hello"]
        await driven.say("/delete")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("y")
        await driven.until(lambda: not driven.said())


async def test_the_mouse_reads_on_in_a_long_list(driven: Driven) -> None:
    async with open_store(Settings.load()) as store:
        for number in range(120):
            await store.conversations.create("", f"title {number}")
    async with driven.run():
        await driven.until(lambda: driven.sidebar.option_count == 50)
        driven.sidebar.scroll_end(animate=False)
        await driven.until(lambda: driven.sidebar.option_count == 100)


WHOLE = dict.fromkeys(Usage.__dataclass_fields__, 3)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 3},
        {},
        WHOLE | {"more": 1},
        WHOLE | {"context_length": 0},
        WHOLE | {"context_length": "x"},
        WHOLE | {"prompt_tokens": 10**400, "load_s": None},
        WHOLE | {"prompt_tokens": -5},
    ],
)
async def test_a_conversation_that_came_with_an_odd_cost_of_its_last_reply_is_opened(
    driven: Driven, usage: dict[str, Any]
) -> None:
    async with open_store(Settings.load()) as store:
        turn = await store.conversations.add_turn(Conversation.new(""), "hello")
        await store.conversations.end_reply(turn.reply.id, "hi", "complete", usage=usage)
    async with driven.run():
        await driven.until(lambda: driven.replies() == ["hi"])
        shown = driven.app.chat.query_one(StatusLine).usage
        assert shown == (Usage(**WHOLE) if "more" in usage else None)


def test_a_gauge_of_no_context_shows_it_as_full() -> None:
    assert gauge(3 / 1) == "━" * 8
    line = StatusLine()
    line.usage = Usage(**WHOLE | {"context_length": 0})
    assert "context ━━━━━━━━" in line.render().plain


async def test_a_reply_that_ends_as_its_last_piece_is_shown_is_shown_whole(driven: Driven) -> None:
    """The piece is on its way to the screen, and what shows it has not begun, when the end comes."""
    async with driven.run():
        await driven.say_and_wait("hello")
        view = driven.app.chat.query_one(ReplyView)
        end = Finished(view.message.id, view.message.text, "stop", "")
        await asyncio.gather(view.append(" and more"), view.end(view.message.text, end))
        await driven.until(lambda: driven.replies()[0].endswith(" and more"))
