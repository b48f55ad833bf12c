"""The terminal chat acts on messages: versions of them, forks, pins, feedback, summaries; driven key by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from textual.widgets import Input, OptionList

from chatbot.commands import COMMANDS
from chatbot.engines.base import ChatMessage
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.records import Message
from storage.summaries import Summary
from tests.functional.test_tui import LONG, Driven, a_long_conversation, driven
from tui.dialogs import ActsMenu, DeleteDialog, LineDialog
from tui.message import MessageView, SummaryView
from tui.sidebar import Sidebar
from tui.transcript import MOST_MOUNTED, Transcript

__all__ = ["driven"]


def numbered() -> Callable[[Sequence[ChatMessage]], str]:
    """Answers that tell each other apart."""
    numbers = count(1)

    def script(messages: Sequence[ChatMessage]) -> str:
        number = next(numbers)
        return LONG if messages[-1].content == "long" else f"reply {number} to {messages[-1].content}"

    return script


@pytest.fixture(autouse=True)
def _numbered(driven: Driven) -> None:
    driven.models.script = numbered()


def transcript(driven: Driven) -> Transcript:
    return driven.app.chat.query_one(Transcript)


def selected(driven: Driven) -> Message | None:
    view = transcript(driven).selected
    return None if view is None else view.message


async def press(driven: Driven, *keys: str) -> None:
    await driven.pilot.press(*keys)
    await driven.pilot.pause()


async def walk(driven: Driven, key: str, text: str) -> None:
    """Move the selection until it is on the message of that text."""
    for _ in range(300):
        if (message := selected(driven)) is not None and message.text == text:
            return
        await press(driven, key)
    raise AssertionError(f"there was no '{text}' on the way; the screen shows {driven.shown()}")


async def stored(driven: Driven, read: Callable[[Store, str], Any]) -> Any:
    """What another process sees of the conversation shown."""
    async with open_store(Settings.load()) as store:
        return await read(store, cast(str, driven.app.chat.conversation))


async def shown_path(store: Store, conversation: str) -> Sequence[Message]:
    return await store.conversations.path((await store.conversations.get(conversation)).leaf_id)


async def test_up_from_an_empty_composer_selects_the_last_message_and_escape_comes_back(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up")
        message = selected(driven)
        assert message is not None
        assert message.text == "reply 1 to hello"
        view = transcript(driven).selected
        assert view is not None
        assert view.has_class("selected")
        await press(driven, "up")
        assert not view.has_class("selected")
        message = selected(driven)
        assert message is not None
        assert message.text == "hello"
        await press(driven, "escape")
        assert driven.composer.has_focus
        assert selected(driven) is None


async def test_up_in_a_draft_moves_its_cursor_and_shift_tab_selects(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, *"half", "up")
        assert driven.composer.has_focus
        await press(driven, "shift+tab")
        assert selected(driven) is not None
        await press(driven, "down")
        assert driven.composer.has_focus
        assert driven.composer.text == "half"


async def test_the_mouse_selects_a_message(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.pilot.click("SaidView")
        message = selected(driven)
        assert message is not None
        assert message.text == "hello"


async def test_what_is_typed_with_a_message_selected_goes_to_the_composer(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up", "v", "x")
        assert driven.composer.text == "vx"
        assert selected(driven) is None


async def test_a_key_that_does_not_fit_the_message_says_so(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up", "e")
        assert driven.toasts() == ["Edit is not for this message."]
        assert driven.composer.text == ""


async def test_another_reply_stands_beside_the_first_and_both_are_turned_to(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        said = driven.app.chat.query_one(".said")
        await press(driven, "up", "r")
        await driven.until(lambda: driven.replies() == ["reply 2 to hello"] and driven.status == "ready")
        assert driven.marks() == ["‹2/2›"]
        await press(driven, "left")
        await driven.until(lambda: driven.replies() == ["reply 1 to hello"])
        assert driven.marks() == ["‹1/2›"]
        await press(driven, "right")
        await driven.until(lambda: driven.replies() == ["reply 2 to hello"])
        assert driven.app.chat.query_one(".said") is said  # what did not change was not made anew


async def test_editing_makes_a_sibling_and_gives_the_draft_back(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.say_and_wait("more")
        await press(driven, *"draft", "shift+tab", "up", "up", "up", "e")
        assert driven.composer.text == "hello"
        await press(driven, "!", "enter")
        await driven.until(lambda: driven.said() == ["hello!"] and driven.status == "ready")
        assert driven.replies() == ["reply 3 to hello!"]
        assert driven.composer.text == "draft"
        messages = await stored(driven, lambda store, here: store.conversations.messages(here))
        assert [message.text for message in messages if message.role == "user"] == ["hello", "more", "hello!"]


async def test_leaving_an_edit_gives_the_draft_back_and_keeps_the_change(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, *"draft", "shift+tab", "up", "e", "!", "?", "escape")
        assert driven.composer.text == "draft"
        assert driven.said() == ["hello"]
        await press(driven, "shift+tab", "up", "e")
        assert driven.composer.text == "hello!?"


async def test_leaving_the_chat_in_the_middle_of_an_edit_keeps_draft_and_change(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, *"draft", "shift+tab", "up", "e", "!")
    again = Driven()
    async with again.run():
        assert again.composer.text == "draft\n\nhello!"


async def test_an_edit_that_is_refused_is_still_there(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up", "up", "e", "!")
        async with open_store(Settings.load()) as store:
            await store.forgetting.conversation(cast(str, driven.app.chat.conversation))
        await press(driven, "enter")
        await driven.until(driven.notices)
        assert driven.composer.text == "hello!"


async def test_a_stopped_reply_is_continued_beside_it(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: "word9" in "".join(driven.replies()))
        await press(driven, "escape")
        await driven.until(lambda: driven.marks() == ["stopped"])
        (cut,) = driven.replies()
        await press(driven, "up", "c")
        await driven.until(lambda: driven.replies() == [LONG])
        assert driven.marks() == ["‹2/2›"]
        await press(driven, "left")
        await driven.until(lambda: driven.replies() == [cut])
        assert driven.marks() == ["‹1/2› · stopped"]


async def test_escape_stops_another_reply_and_keeps_what_came(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: driven.replies() == [LONG] and driven.status == "ready")
        await press(driven, "up", "r")
        await driven.until(lambda: "word3" in driven.replies()[0] and driven.replies()[0] != LONG)
        await press(driven, "escape")
        await driven.until(lambda: driven.marks() == ["‹2/2› · stopped"])


async def test_turning_away_from_a_reply_under_way_and_back_follows_it(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: driven.replies() == [LONG] and driven.status == "ready")
        await press(driven, "up", "r")
        await driven.until(lambda: "word3" in driven.replies()[0] and driven.replies()[0] != LONG)
        await press(driven, "left")
        await driven.until(lambda: driven.marks() == ["‹1/2›"])
        await press(driven, "right")
        await driven.until(lambda: driven.marks() == ["‹2/2›"] and driven.replies() == [LONG])


async def test_a_message_is_pinned_and_a_reply_rated_with_a_note(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up", "p", "plus", "n")
        await driven.until(lambda: isinstance(driven.app.screen, LineDialog))
        await press(driven, *"why", "enter")
        await driven.until(lambda: driven.marks() == ["pinned · + good: why"])
        await press(driven, "minus")
        await driven.until(lambda: driven.marks() == ["pinned · - bad: why"])
        reply = (await stored(driven, shown_path))[-1]
        assert (reply.pinned, reply.rating, reply.note) == (True, -1, "why")
        await press(driven, "minus", "p")
        await driven.until(lambda: driven.marks() == [""])


async def test_the_menu_offers_what_fits_and_does_it_once(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await press(driven, "up", "enter")
        await driven.until(lambda: isinstance(driven.app.screen, ActsMenu))
        offered = [option.id for option in driven.app.screen.query_one(OptionList).options]
        assert offered == ["retry", "good", "bad", "copy", "pin", "fork", "delete"]
        await press(driven, "d")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await press(driven, "n")
        await driven.until(lambda: driven.app.screen is driven.app.chat)
        await driven.pilot.pause(0.1)
        assert driven.app.screen is driven.app.chat


async def test_a_fork_goes_on_in_a_conversation_of_its_own(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("one")
        await driven.say_and_wait("two")
        first = driven.app.chat.conversation
        await press(driven, "up", "up", "up", "f")
        await driven.until(lambda: driven.app.chat.conversation != first and driven.said() == ["one"])
        assert driven.sidebar.option_count == 2
        await driven.say_and_wait("three")
        assert driven.said() == ["one", "three"]


async def test_the_text_is_copied_as_it_was_written(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("**bold**")
        await press(driven, "up", "y")
        assert driven.app.clipboard == "reply 1 to **bold**"


async def test_deleting_a_message_asks_first_and_keeps_what_followed(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("one")
        await driven.say_and_wait("two")
        await press(driven, "up", "up", "d")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await press(driven, "y")
        await driven.until(lambda: driven.said() == ["one"])
        assert driven.replies() == ["reply 1 to one", "reply 2 to two"]
        message = selected(driven)
        assert message is not None
        assert message.text == "reply 2 to two"


async def test_acting_on_a_message_that_another_process_deleted_is_said(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("one")
        await driven.say_and_wait("two")
        path = await stored(driven, shown_path)
        async with open_store(Settings.load()) as store:
            await store.forgetting.message(path[-1].id)
        await press(driven, "up", "p")
        await driven.until(driven.notices)
        assert "no message" in driven.notices()[0]
        await driven.until(lambda: driven.replies() == ["reply 1 to one"])
        async with open_store(Settings.load()) as store:
            await store.forgetting.conversation(cast(str, driven.app.chat.conversation))
        await press(driven, "shift+tab", "up", "up", "r")
        await driven.until(lambda: "no conversation" in driven.notices()[-1])


async def test_the_edit_command_takes_up_what_was_said_last(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        driven.app.chat.offer(COMMANDS["edit"])
        await driven.until(lambda: driven.composer.text == "hello")
        await press(driven, "!", "enter")
        await driven.until(lambda: driven.said() == ["hello!"] and driven.status == "ready")
        await driven.say("/previous")
        await driven.until(lambda: driven.said() == ["hello"])


async def test_a_summary_stands_in_its_place_and_opens(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("one")
        await driven.say_and_wait("two")
        path = await stored(driven, shown_path)
        summary = Summary(path[1].id, path[1].conversation_id, "They said [b]one[/b].", "fake@1", datetime.now(UTC))
        async with open_store(Settings.load()) as store:
            assert await store.summaries.add(summary, [path[0].id, path[1].id], None)
        driven.sidebar.post_message(Sidebar.Chosen(path[0].conversation_id))
        await driven.until(lambda: any(view.display for view in driven.app.chat.query(SummaryView)))
        (shown,) = [view for view in driven.app.chat.query(SummaryView) if view.display]
        assert shown.parent is transcript(driven).view(path[1].id)
        assert str(shown.render()) == "▸ Earlier, summarised by the model"
        await walk(driven, "up", "reply 1 to one")
        await press(driven, "s")
        assert str(shown.render()) == "▾ Earlier, summarised by the model\nThey said [b]one[/b]."


async def test_a_summary_made_while_the_person_looks_appears(driven: Driven) -> None:
    driven.models.context_length = 120
    async with driven.run():
        for number in range(8):
            await driven.say_and_wait(f"fact {number} is here to be kept")
        await driven.until(lambda: any(view.display for view in driven.app.chat.query(SummaryView)))


async def test_a_long_conversation_is_walked_through_a_window(driven: Driven) -> None:
    await a_long_conversation(50)
    async with driven.run():
        assert len(transcript(driven).views) == 20
        await walk(driven, "up", "question 12")
        assert len(transcript(driven).views) <= MOST_MOUNTED
        assert not transcript(driven).at_end
        await press(driven, "end")
        await driven.until(lambda: driven.said()[-1:] == ["question 49"])
        assert transcript(driven).at_end
        await walk(driven, "up", "question 12")
        await press(driven, "escape")
        await driven.say("and now?")
        await driven.until(lambda: driven.said()[-1:] == ["and now?"] and driven.status == "ready")
        assert driven.replies()[-1] == "reply 1 to and now?"


async def test_a_version_above_is_turned_in_its_place(driven: Driven) -> None:
    await a_long_conversation(25)
    async with driven.run():
        path = await stored(driven, shown_path)
        async with open_store(Settings.load()) as store:
            turn = await store.conversations.add_turn(path[0].conversation_id, "instead", beside=path[20].id)
            await store.conversations.end_reply(turn.reply.id, "of that", "complete")
            await store.conversations.switch(path[0].conversation_id, path[21].id)
        driven.sidebar.post_message(Sidebar.Chosen(path[0].conversation_id))
        await driven.until(lambda: driven.said()[-1:] == ["question 24"])
        await walk(driven, "up", "question 10")
        kept = cast(MessageView, transcript(driven).view(path[19].id))
        await press(driven, "right")
        await driven.until(lambda: driven.said()[-1:] == ["instead"])
        assert driven.replies()[-1] == "of that"
        assert kept.is_attached
        assert transcript(driven).at_end


async def test_the_list_duplicates_and_exports(driven: Driven, tmp_path: Path) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        first = driven.app.chat.conversation
        await press(driven, "ctrl+b", "ctrl+b", "f5")
        await driven.until(lambda: driven.app.chat.conversation not in (None, first))
        assert driven.said() == ["hello"]
        await driven.until(lambda: driven.sidebar.option_count == 2)
        driven.sidebar.focus()
        await press(driven, "f6")
        await driven.until(lambda: isinstance(driven.app.screen, LineDialog))
        name = driven.app.screen.query_one(Input)
        assert name.value == "hello.md"
        name.value = str(tmp_path / "it.md")
        await press(driven, "enter")
        await driven.until(lambda: (tmp_path / "it.md").exists())
        assert "reply 1 to hello" in (tmp_path / "it.md").read_text()


async def test_enter_in_the_list_opens_a_conversation(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("first")
        await press(driven, "ctrl+n")
        await driven.until(lambda: driven.said() == [])
        await driven.say_and_wait("second")
        driven.sidebar.focus()
        await press(driven, "down", "enter")
        await driven.until(lambda: driven.said() == ["first"])
