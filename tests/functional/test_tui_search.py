"""The search screen of the terminal chat, driven key by key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from textual.content import Content
from textual.widgets import Input, OptionList, Static

from chatbot.settings import Settings
from chatbot.store import open_store
from storage.schema import messages
from tests.functional.test_tui import Driven, a_long_conversation, driven
from tui.search_screen import PAGE, WHEN, SearchScreen, beginning
from tui.transcript import Transcript

__all__ = ["driven"]


def results(driven: Driven) -> list[Content]:
    found = [option.prompt for option in driven.app.screen.query_one("#results", OptionList).options]
    return [prompt for prompt in found if isinstance(prompt, Content)]


def state(driven: Driven) -> str:
    return str(driven.app.screen.query_one("#search-state", Static).render())


async def open_search(driven: Driven, words: str = "") -> None:
    await driven.pilot.press("ctrl+f")
    await driven.until(lambda: isinstance(driven.app.screen, SearchScreen))
    await driven.pilot.press(*words)


async def talks(*said: Sequence[str]) -> list[str]:
    """Conversations, of what was said in turn in each; gives their ids."""
    ids = []
    async with open_store(Settings.load()) as store:
        for texts in said:
            conversation = (await store.conversations.create("")).id
            ids.append(conversation)
            for text in texts:
                turn = await store.conversations.add_turn(conversation, text)
                await store.conversations.end_reply(turn.reply.id, f"an answer to {text}", "complete")
    return ids


async def test_results_come_as_one_types_with_the_words_marked(driven: Driven) -> None:
    await talks(["the ferry leaves", "[red]nothing[/]"], ["music"])
    async with driven.run():
        await open_search(driven, "ferr")
        await driven.until(lambda: len(results(driven)) == 2)
        assert "2 found" in state(driven)
        heading, snippet = results(driven)[1].plain.split("\n")
        assert heading.startswith("the ferry leaves · ")
        assert heading.endswith(" · you")
        assert snippet == "the ferry leaves"
        marked = [
            results(driven)[1].plain[span.start : span.end]
            for span in results(driven)[1].spans
            if "underline" in str(span.style)
        ]
        assert marked == ["ferr"]


async def test_markup_that_was_said_stays_text(driven: Driven) -> None:
    await talks(["[red]nothing[/] [b"])
    async with driven.run():
        await open_search(driven, "nothing")
        await driven.until(lambda: len(results(driven)) == 2)
        assert results(driven)[1].plain.endswith("[red]nothing[/] [b")


@pytest.mark.parametrize("words", ['"', "AND", "%", "a* OR (", "東"])
async def test_any_words_are_safe(driven: Driven, words: str) -> None:
    await talks(["hello"])
    async with driven.run():
        await open_search(driven)
        driven.app.screen.query_one(Input).value = words
        await driven.until(lambda: "nothing found" in state(driven) or "double quotes" in state(driven))


async def test_enter_opens_the_conversation_at_the_message_far_above(driven: Driven) -> None:
    await a_long_conversation(150)
    await talks(["something else"])
    async with driven.run():
        assert driven.said() == ["something else"]
        await driven.pilot.press(*"my draft")
        await open_search(driven, '"question 30"')
        await driven.until(lambda: len(results(driven)) == 1)
        await driven.pilot.press("enter")
        transcript = driven.app.chat.query_one(Transcript)
        await driven.until(lambda: transcript.selected is not None)
        assert transcript.selected is not None
        assert transcript.selected.message.text == "question 30"
        assert len(transcript.views) <= 45
        await driven.pilot.pause()
        region = transcript.selected.virtual_region
        assert transcript.scroll_offset.y <= region.y < transcript.scroll_offset.y + transcript.size.height
        transcript.scroll_end(animate=False)
        await driven.until(lambda: "question 45" in driven.said())
        assert driven.composer.text == ""
        await driven.pilot.press("ctrl+b")


async def test_escape_comes_back_to_where_one_was_with_the_draft(driven: Driven) -> None:
    await talks(["hello"])
    async with driven.run():
        await driven.pilot.press(*"my draft")
        await open_search(driven, "hell")
        await driven.until(lambda: len(results(driven)) == 2)
        await driven.pilot.press("escape")
        await driven.until(lambda: driven.app.screen is driven.app.chat)
        assert driven.composer.text == "my draft"
        assert driven.composer.has_focus
        assert driven.said() == ["hello"]
        await open_search(driven)
        assert driven.app.screen.query_one(Input).value == "hell"


async def test_the_search_is_narrowed_to_here_and_to_one_side(driven: Driven) -> None:
    await talks(["ferry one"], ["ferry two"])
    async with driven.run():
        await open_search(driven, "ferry")
        await driven.until(lambda: len(results(driven)) == 4)
        await driven.pilot.press("f3")
        await driven.until(lambda: len(results(driven)) == 2)
        assert state(driven).startswith("this conversation · you and replies")
        await driven.pilot.press("f4")
        await driven.until(lambda: len(results(driven)) == 1)
        assert results(driven)[0].plain.endswith("\nferry two")
        await driven.pilot.press("f4", "f3")
        await driven.until(lambda: len(results(driven)) == 2)
        assert state(driven).startswith("everywhere · replies")


async def test_the_search_is_narrowed_to_a_time(driven: Driven) -> None:
    for age in (0, 400):
        (conversation,) = await talks([f"ferry {age} days ago"])
        async with open_store(Settings.load()) as store, store.database.write() as connection:
            of_it = messages.update().where(messages.c.conversation_id == conversation)
            await connection.execute(of_it.values(created=datetime.now(UTC) - timedelta(days=age)))
    async with driven.run():
        await open_search(driven, "ferry")
        await driven.until(lambda: len(results(driven)) == 4)
        for when in ("today", "this week", "this month", "this year"):
            await driven.pilot.press("f5")
            await driven.until(lambda: len(results(driven)) == 2)
            assert state(driven).startswith(f"everywhere · you and replies · {when} · 2 found")
        await driven.pilot.press("f5")
        await driven.until(lambda: len(results(driven)) == 4)
        assert " · any time · " in state(driven)


def test_a_day_a_week_a_month_and_a_year_begin_at_midnight() -> None:
    now = datetime(2026, 11, 25, 1, 27).astimezone()  # a Wednesday
    begun = {when: beginning(when, now) for when in WHEN}
    assert begun.pop("any time") is None
    assert {when: (at.month, at.day, at.hour) for when, at in begun.items() if at} == {
        "today": (11, 25, 0),
        "this week": (11, 23, 0),
        "this month": (11, 1, 0),
        "this year": (1, 1, 0),
    }


async def test_a_hit_on_another_branch_shows_that_branch(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("alpha")
        await driven.pilot.press("up", "up", "e")
        driven.composer.put("beta")
        await driven.pilot.press("enter")
        await driven.until(lambda: driven.said() == ["beta"] and driven.status == "ready")
        await open_search(driven, "alpha")
        await driven.until(lambda: len(results(driven)) == 2)
        await driven.pilot.press("down", "enter")
        await driven.until(lambda: driven.said() == ["alpha"])


async def test_the_command_opens_the_search_with_its_words(driven: Driven) -> None:
    await talks(["the ferry leaves"])
    async with driven.run():
        await driven.say("/search ferry")
        await driven.until(lambda: isinstance(driven.app.screen, SearchScreen))
        await driven.until(lambda: len(results(driven)) == 2)


async def test_more_results_come_as_one_moves_down(driven: Driven) -> None:
    await talks([f"ferry {number}" for number in range(40)])
    async with driven.run():
        await open_search(driven, "ferry")
        await driven.until(lambda: len(results(driven)) == PAGE)
        assert f"{PAGE}+ found" in state(driven)
        await driven.pilot.press(*["pagedown"] * 12)
        await driven.until(lambda: len(results(driven)) == 80)
        assert "80 found" in state(driven)


async def test_typing_goes_on_while_a_slow_search_is_under_way_and_the_newest_is_shown(driven: Driven) -> None:
    await talks(["apple"], ["pear"])
    async with driven.run():
        search = driven.app.chat.service.store.search
        asked, find, release = [], search.find, asyncio.Event()

        async def slow(query: Any, *where: Any) -> Any:
            asked.append(query.text)
            if query.text == "apple":
                await release.wait()
            return await find(query, *where)

        search.find = slow  # type: ignore[method-assign]  # for this test alone
        await open_search(driven, "apple")
        await driven.until(lambda: "apple" in asked)
        driven.app.screen.query_one(Input).value = "pea"
        await driven.pilot.pause(0.3)
        await driven.pilot.press("r")
        await driven.pilot.pause(0.3)
        release.set()
        await driven.until(lambda: len(results(driven)) == 2)
        assert "pear" in results(driven)[0].plain
        assert asked[-2:] == ["apple", "pear"]


async def test_a_message_deleted_meanwhile_is_said(driven: Driven) -> None:
    (conversation,) = await talks(["hello there"])
    async with driven.run():
        await driven.pilot.press("ctrl+n")
        await driven.until(lambda: driven.said() == [])
        await driven.pilot.press(*"draft")
        await open_search(driven, "hello")
        await driven.until(lambda: len(results(driven)) == 2)
        async with open_store(Settings.load()) as store:
            await store.forgetting.conversation(conversation)
        await driven.pilot.press("enter")
        await driven.until(lambda: "no conversation" in "".join(driven.notices()))
        assert driven.composer.text == "draft"
