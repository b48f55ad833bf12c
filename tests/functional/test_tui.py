"""The terminal chat, driven key by key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TypeVar, cast

import pytest
from textual import events
from textual.css.query import NoMatches
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Markdown, Static

from chatbot.chat import ChatService
from chatbot.engines.base import ChatMessage, ImageGenerator, Responder
from chatbot.engines.fake import Script, ScriptedGenerator, ScriptedResponder, echo
from chatbot.engines.load import Models, Notify
from chatbot.errors import ModelError
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.records import Message, Role
from tui.app import ChatbotApp
from tui.composer import Composer
from tui.dialogs import DeleteDialog
from tui.message import MessageView, NoticeView, ReplyView, SaidView
from tui.sidebar import Sidebar
from tui.status import StatusLine
from tui.transcript import MOST_MOUNTED, Transcript

LONG = " ".join(f"word{number}" for number in range(400))

Part = TypeVar("Part", bound=Widget)


def script(messages: Sequence[ChatMessage]) -> str:
    return LONG if messages[-1].content == "long" else echo(messages)


class Scripted(Models):
    """Models whose loading a test decides."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.failure: str = ""
        self.script: Script = script
        self.context_length = 4096

    async def name(self, wanted: str = "") -> str:
        return "fake@1"

    @asynccontextmanager
    async def responder(self, notify: Notify, wanted: str = "") -> AsyncIterator[Responder]:
        await self.ready.wait()
        if self.failure:
            raise ModelError(self.failure)
        yield ScriptedResponder(self.script, delay=0.01, context_length=self.context_length)

    @asynccontextmanager
    async def generator(self, notify: Notify) -> AsyncIterator[ImageGenerator]:
        if self.failure:
            raise ModelError(self.failure)
        yield ScriptedGenerator(delay=0.05)

    async def close(self) -> None:
        return None


class Driven:
    """An app under test, and what a person sees of it."""

    def __init__(self) -> None:
        self.models = Scripted()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.app = ChatbotApp({}, opener=self._open)
        self.pilot: Pilot[None]

    @asynccontextmanager
    async def _open(self, settings: Settings) -> AsyncIterator[ChatService]:
        await self.may_open.wait()
        async with open_store(settings) as store:
            service = ChatService(store, self.models, settings)
            try:
                yield service
            finally:
                await service.close()

    @asynccontextmanager
    async def run(self, size: tuple[int, int] = (100, 30)) -> AsyncIterator[Driven]:
        try:
            async with self.app.run_test(size=size) as self.pilot:
                if self.may_open.is_set() and not self.models.failure:
                    await self.until(lambda: self.status == "ready")
                yield self
        finally:
            await self.app.close_service()

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(500):
            if condition():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"it never came to that; the screen shows {self.shown()}")

    async def say(self, text: str) -> None:
        self.composer.put(text)
        await self.pilot.press("enter")

    async def say_and_wait(self, text: str) -> None:
        before = len(self.replies())
        await self.say(text)
        await self.until(lambda: len(self.replies()) > before and self.status == "ready")

    @property
    def composer(self) -> Composer:
        return self.app.chat.query_one(Composer)

    @property
    def status(self) -> str:
        return self.app.chat.query_one(StatusLine).state

    @property
    def sidebar(self) -> Sidebar:
        return self.app.chat.query_one(Sidebar)

    def said(self) -> list[str]:
        return [str(part.render()) for part in self._parts(SaidView, Static)]

    def replies(self) -> list[str]:
        return [part.source for part in self._parts(ReplyView, Markdown)]

    def marks(self) -> list[str]:
        return [str(part.render()) for part in self._parts(ReplyView, Static, ".mark")]

    def _parts(self, views: type[MessageView], part: type[Part], selector: str = "") -> list[Part]:
        """The nearest such part of each view; one that is not laid out yet, or goes just now, shows nothing."""
        found = []
        for view in self.app.chat.query(views):
            with suppress(NoMatches):
                found.append(view.query_one(selector or part.__name__, part))
        return found

    def notices(self) -> list[str]:
        return [str(view.render()) for view in self.app.chat.query(NoticeView)]

    def toasts(self) -> list[str]:
        """What was said beside all else, and goes by itself."""
        return [notification.message for notification in self.app._notifications]

    def shown(self) -> dict[str, object]:
        return {"said": self.said(), "replies": self.replies(), "notices": self.notices(), "status": self.status}


@pytest.fixture
def driven() -> Driven:
    return Driven()


async def test_a_message_is_answered_in_the_transcript(driven: Driven) -> None:
    async with driven.run():
        await driven.pilot.press(*"hello")
        await driven.pilot.press("enter")
        await driven.until(lambda: driven.replies() == ["You said: hello"])
        assert driven.said() == ["hello"]
        assert driven.composer.text == ""
        await driven.until(lambda: driven.sidebar.option_count == 1)


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter"])
async def test_a_new_line_has_a_key_of_its_own(driven: Driven, key: str) -> None:
    async with driven.run():
        await driven.pilot.press("a", key, "b")
        assert driven.composer.text == "a\nb"
        await driven.pilot.press("enter")
        await driven.until(lambda: driven.replies() == ["You said: a\nb"])


async def test_an_empty_message_is_not_sent(driven: Driven) -> None:
    async with driven.run():
        await driven.pilot.press("space", "enter")
        await driven.pilot.pause()
        assert driven.said() == []


async def test_escape_stops_the_reply_and_keeps_what_came(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: "word3" in "".join(driven.replies()))
        await driven.pilot.press("escape")
        await driven.until(lambda: driven.marks() == ["stopped"])
        (reply,) = driven.replies()
        assert LONG.startswith(reply)
        assert len(reply) < len(LONG)
        async with open_store(Settings.load()) as store:
            (conversation,) = await store.conversations.list()
            stored = await store.conversations.path(conversation.leaf_id)
            assert (stored[-1].status, stored[-1].text) == ("stopped", reply)


async def test_escape_twice_in_a_row_does_no_harm(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: "word3" in "".join(driven.replies()))
        await driven.pilot.press("escape", "escape", "escape")
        await driven.until(lambda: driven.status == "ready")
        await driven.say_and_wait("again")
        assert driven.replies()[-1] == "You said: again"


async def test_markup_in_messages_and_replies_stays_text(driven: Driven) -> None:
    text = "[red]x[/] [b @click=app.quit]y[/b] <b>z</b>"
    async with driven.run():
        await driven.say_and_wait(text)
        assert driven.said() == [text]
        shown = "\n".join(str(widget.render()) for widget in driven.app.chat.query("MarkdownParagraph"))
        assert text in shown


async def test_an_unknown_command_is_said_and_its_text_stays(driven: Driven) -> None:
    async with driven.run():
        await driven.say("/nonesuch thing")
        await driven.until(driven.notices)
        assert "no command /nonesuch" in driven.notices()[0]
        assert driven.composer.text == "/nonesuch thing"


async def test_help_lists_the_commands_without_becoming_part_of_the_conversation(driven: Driven) -> None:
    async with driven.run():
        await driven.say("/help")
        await driven.until(driven.notices)
        assert "/rename TITLE" in driven.notices()[0]
        assert driven.sidebar.option_count == 0


async def test_a_second_message_waits_in_the_composer_while_a_reply_comes(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: driven.status == "replying")
        await driven.say("next")
        assert driven.composer.text == "next"
        assert driven.said() == ["long"]


async def test_what_is_typed_right_after_enter_stays_for_the_next_message(driven: Driven) -> None:
    async with driven.run():
        await driven.pilot.press(*"first", "enter", *"second")
        await driven.until(lambda: driven.replies() == ["You said: first"])
        assert driven.composer.text == "second"


async def test_a_new_conversation_right_after_enter_keeps_both(driven: Driven) -> None:
    async with driven.run():
        await driven.pilot.press(*"abc", "enter", "ctrl+n")
        await driven.until(lambda: driven.status == "ready" and driven.sidebar.option_count == 1)
        await driven.say_and_wait("other")
        async with open_store(Settings.load()) as store:
            assert [c.title for c in await store.conversations.list()] == ["other", "abc"]


async def test_a_conversation_deleted_elsewhere_is_said_and_nothing_breaks(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        async with open_store(Settings.load()) as store:
            await store.forgetting.conversation(cast(str, driven.app.chat.conversation))
        await driven.pilot.press("f2")
        await driven.until(lambda: "no conversation" in "".join(driven.notices()))


async def test_deleting_a_conversation_leaves_the_draft_of_the_new_one_alone(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.pilot.press("ctrl+n")
        await driven.until(lambda: driven.said() == [])
        await driven.pilot.press(*"kept")
        driven.sidebar.post_message(Sidebar.Chosen(str(driven.sidebar.get_option_at_index(0).id)))
        await driven.until(lambda: driven.said() == ["hello"] and driven.composer.text == "")
        await driven.pilot.press(*"gone", "f8")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("y")
        await driven.until(lambda: driven.said() == [])
        await driven.until(lambda: driven.composer.text == "kept")


async def test_what_is_typed_before_anything_is_open_is_sent_once_it_is(driven: Driven) -> None:
    driven.may_open.clear()
    async with driven.run():
        await driven.pilot.press(*"early")
        await driven.pilot.press("enter")
        assert "as soon as" in driven.status
        driven.may_open.set()
        await driven.until(lambda: driven.replies() == ["You said: early"])
        assert driven.said() == ["early"]


async def test_a_message_sent_while_the_model_loads_is_answered_when_it_is_there(driven: Driven) -> None:
    driven.models.ready.clear()
    driven.may_open.clear()
    async with driven.run():
        driven.may_open.set()
        await driven.say("patience")
        await driven.until(lambda: driven.said() == ["patience"])
        driven.models.ready.set()
        await driven.until(lambda: driven.replies() == ["You said: patience"])


async def test_a_model_that_does_not_load_is_said_and_the_next_message_tries_again(driven: Driven) -> None:
    driven.models.failure = "The model is missing; fetch it."
    async with driven.run():
        await driven.until(lambda: driven.status == "no model")
        assert driven.notices() == ["The model is missing; fetch it."]
        await driven.say("anyone?")
        await driven.until(lambda: driven.marks() == ["The model is missing; fetch it."])
        assert driven.said() == ["anyone?"]
        driven.models.failure = ""
        await driven.say_and_wait("and now?")
        assert driven.replies()[-1] == "You said: and now?"


async def test_the_last_conversation_and_the_draft_are_there_again(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("remember me")
        await driven.pilot.press(*"half a thou")
    again = Driven()
    async with again.run():
        assert again.said() == ["remember me"]
        assert again.replies() == ["You said: remember me"]
        assert again.composer.text == "half a thou"


async def test_switching_away_lets_the_reply_go_on_and_coming_back_follows_it(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("first")
        first = driven.app.chat.conversation
        await driven.pilot.press("ctrl+n")
        await driven.until(lambda: driven.said() == [])
        await driven.say("long")
        await driven.until(lambda: "word3" in "".join(driven.replies()))
        second = driven.app.chat.conversation
        driven.sidebar.post_message(Sidebar.Chosen(cast(str, first)))
        await driven.until(lambda: driven.said() == ["first"])
        driven.sidebar.post_message(Sidebar.Chosen(cast(str, second)))
        await driven.until(lambda: driven.said() == ["long"])
        await driven.until(lambda: driven.replies() == [LONG])


async def test_a_conversation_is_renamed_with_a_key(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.pilot.press("f2")
        await driven.pilot.pause()
        await driven.pilot.press("end", *"!!", "enter")
        await driven.until(lambda: "hello!!" in str(driven.sidebar.get_option_at_index(0).prompt))


async def test_deleting_asks_first(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.pilot.press("f8")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("n")
        await driven.until(lambda: driven.app.screen is driven.app.chat)
        assert driven.said() == ["hello"]
        await driven.pilot.press("f8")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("y")
        await driven.until(lambda: driven.said() == [])
        assert driven.sidebar.option_count == 0


async def a_long_conversation(turns: int) -> None:
    async with open_store(Settings.load()) as store:
        conversation = (await store.conversations.create("")).id
        for number in range(turns):
            reply = (await store.conversations.add_turn(conversation, f"question {number}")).reply
            await store.conversations.end_reply(reply.id, f"answer {number}", "complete")


async def test_a_long_conversation_mounts_what_is_seen_and_more_on_scrolling_up(driven: Driven) -> None:
    await a_long_conversation(100)
    async with driven.run():
        assert driven.said() == [f"question {number}" for number in range(90, 100)]
        transcript = driven.app.chat.query_one(Transcript)
        transcript.scroll_home(animate=False)
        await driven.until(lambda: driven.said()[:1] == ["question 80"])
        assert driven.said() == [f"question {number}" for number in range(80, 100)]


def a_message(role: Role, text: str) -> Message:
    return Message(text, "", None, role, text, "complete", datetime.now(UTC))


async def test_a_long_sitting_lets_go_of_what_has_scrolled_away(driven: Driven) -> None:
    async with driven.run():
        for number in range(40):
            await driven.app.chat.query_one(Transcript).add(SaidView(a_message("user", f"line {number}")))
            await driven.app.chat.query_one(Transcript).add(ReplyView(a_message("assistant", f"reply {number}")))
        assert len(driven.app.chat.query_one(Transcript).children) == MOST_MOUNTED
        assert driven.said()[-1] == "line 39"


async def test_many_conversations_are_listed_a_page_at_a_time(driven: Driven) -> None:
    async with open_store(Settings.load()) as store:
        for number in range(120):
            await store.conversations.create("", title=f"conversation {number}")
    async with driven.run():
        assert driven.sidebar.option_count == 50
        driven.sidebar.highlighted = 49
        await driven.until(lambda: driven.sidebar.option_count == 100)


async def test_a_paste_arrives_once(driven: Driven) -> None:
    async with driven.run():
        driven.app.post_message(events.Paste("two\nlines"))
        await driven.until(lambda: driven.composer.text)
        await driven.pilot.pause()
        assert driven.composer.text == "two\nlines"


async def test_a_megabyte_pasted_is_sent_whole(driven: Driven) -> None:
    pasted = "many words " * 95_000
    async with driven.run():
        driven.app.post_message(events.Paste(pasted))
        await driven.until(lambda: "1,045,000 characters" in driven.composer.text)
        await driven.pilot.press("enter")
        await driven.until(driven.marks)
        async with open_store(Settings.load()) as store:
            (conversation,) = await store.conversations.list()
            said, reply = await store.conversations.messages(conversation.id)
        assert said.text == pasted.strip()
        assert reply.status == "failed"


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (200, 60)])
async def test_any_size_of_terminal_is_survived(driven: Driven, size: tuple[int, int]) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: driven.status == "replying")
        await driven.pilot.resize_terminal(*size)
        await driven.pilot.pause(0.2)
        await driven.pilot.resize_terminal(100, 30)
        await driven.pilot.press("escape")
        await driven.until(lambda: driven.marks() == ["stopped"])


async def test_closing_in_mid_reply_keeps_what_came(driven: Driven) -> None:
    async with driven.run():
        await driven.say("long")
        await driven.until(lambda: "word9" in "".join(driven.replies()))
    async with open_store(Settings.load()) as store:
        (conversation,) = await store.conversations.list()
        _, reply = await store.conversations.path(conversation.leaf_id)
        assert reply.status in ("stopped", "interrupted")
        assert "word9" in reply.text
