"""The terminal chat at awkward moments."""

from __future__ import annotations

from textual import events

from chatbot.commands import COMMANDS
from chatbot.session import open_store
from chatbot.settings import Settings
from tests.functional.test_tui import Driven, a_long_conversation, driven
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
