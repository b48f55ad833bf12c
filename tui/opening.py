"""Which conversation is shown, which branch of it, and which part of that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chatbot.errors import UserError
from chatbot.events import Started, Usage
from storage.errors import NotFoundError
from tui.drafts import NEW
from tui.message import ReplyView, view_of
from tui.transcript import MOST_MOUNTED, PAGE, ScrollTo, Window

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from storage.records import Message
    from tui.chat_screen import ChatScreen

MOST_FIGURE = 2**53
"""More of anything is a mistake of the file it came from."""


class Opening:
    """Opens conversations in the chat. A reply under way goes on, and is followed again on coming back."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.lock = asyncio.Lock()
        """Held while the draft and what is shown do not belong together."""
        self.shown = 0
        """Counts the times another conversation was shown."""

    @property
    def _service(self) -> ChatService:
        return self._screen.service

    async def first(self, wanted: str | None, *, new: bool) -> str | None:
        """The conversation to begin with: the one wanted, else the last one."""
        conversations = self._service.conversations
        if wanted is not None:
            return (await conversations.get(wanted)).id
        if await conversations.draft(NEW):  # what was being typed when the person left
            return None
        latest = [] if new else await conversations.list(limit=1)
        return latest[0].id if latest else None

    async def switch(
        self, conversation: str | None, *, at: str | None = None, keep_typed: bool = False, save_typed: bool = True
    ) -> None:
        """Show another conversation, at its end or at a message."""
        screen, composer = self._screen, self._screen.composer
        async with self.lock:
            typed = ""
            if not keep_typed:  # what is typed while this goes on is for the conversation to be shown
                typed = screen.editing.typed()
                if screen.editing.current is not None:
                    screen.editing.end()
                composer.put("")
            try:
                if save_typed and not keep_typed:
                    await screen.drafts.save(screen.conversation, typed)
                await self._show(conversation, at)
            except BaseException:
                if typed:
                    composer.give_back(typed)
                raise
        await screen.refresh_sidebar()
        (composer if at is None else screen.transcript).focus()

    async def _show(self, conversation: str | None, at: str | None) -> None:
        screen, service = self._screen, self._service
        await service.conversations.mark_interrupted()
        window = await self._window(conversation, at)
        for live in screen.replies.live.values():
            live.view = None
        screen.conversation = conversation
        self.shown += 1
        await self._place(window, at, "end" if at is None else "selected")
        with suppress(UserError):  # one that is gone says so when it is asked
            screen.status.model = await service.model(conversation)
        if draft := await screen.drafts.open(conversation):  # beside what was typed before it could be read
            screen.composer.give_back(draft)

    async def _window(self, conversation: str | None, at: str | None, before: int = PAGE) -> Window:
        """`before` messages up to `at` (None: to the end), and a page of what follows."""
        if conversation is None:
            return Window([], None)
        conversations = self._service.conversations
        leaf = (await conversations.get(conversation)).leaf_id
        if at is None or leaf is None:
            return Window(await conversations.path(leaf, before), leaf)
        after = await conversations.following(leaf, at, PAGE)
        if after is None:  # it stands on another branch
            leaf = await self._service.switch(conversation, at)
            after = await conversations.following(leaf, at, PAGE) or []
        return Window([*await conversations.path(at, before), *after], leaf, len(after) < PAGE)

    async def _place(self, window: Window, select: str | None, to: ScrollTo) -> None:
        screen = self._screen
        live = screen.replies.live.get(screen.conversation or "")
        if live is not None:  # what came, from here rather than from the database
            shown = [replace(said, text="") if said.id == live.reply else said for said in window.messages]
            window = replace(window, messages=shown)
        await screen.transcript.show(window, self._service.conversations, select=select, to=to)
        if live is not None and isinstance(view := screen.transcript.view(live.reply), ReplyView):
            live.show_in(view)
        screen.status.usage = usage_of(window.messages)

    async def begin(self, started: Started, looked_at: int) -> bool:
        """Show the beginning of a reply; False where the person looks at another conversation by now."""
        screen = self._screen
        async with self.lock:
            if self.shown != looked_at:
                return False
            screen.conversation = started.conversation
            await screen.drafts.sent()
            await screen.save_draft()
            await self._begin(started)
        return True

    async def _begin(self, started: Started) -> None:
        transcript, conversations = self._screen.transcript, self._service.conversations
        live = self._screen.replies.live[started.conversation]
        if started.branched or not transcript.at_end:
            first = transcript.view(started.message)
            before = PAGE if first is None else transcript.views.index(first) + 2
            window = Window(await conversations.path(started.reply, before), started.reply)
            acted = transcript.has_focus and transcript.selected is not None
            await self._place(window, started.reply if acted else None, "end")
            return
        for message in await conversations.path(started.reply, 2):
            # What came of the reply may be stored by now; it is shown from here, from its beginning.
            view = view_of(replace(message, text="") if message.id == live.reply else message)
            await transcript.add(view)
            if isinstance(view, ReplyView):
                live.show_in(view)
        transcript.to_end()

    async def to_end(self) -> None:
        """Show the end of the branch."""
        async with self.lock:
            await self._place(await self._window(self._screen.conversation, None), None, "end")

    async def turn_over(self, message: Message, step: int) -> None:
        """Show the next version of a message (-1: the one before) and what follows that one."""
        transcript, conversations = self._screen.transcript, self._service.conversations
        async with self.lock:
            ids = await conversations.siblings(message.id)
            target = ids[(ids.index(message.id) + step) % len(ids)]
            await self._service.switch(message.conversation_id, target)
            view = transcript.view(message.id)
            before = PAGE if view is None else transcript.views.index(view) + 1
            await self._place(await self._window(message.conversation_id, target, before), target, "selected")

    async def refresh(self, select: str | None = None) -> None:
        """Show the same part of the same conversation as it is now, and select a message."""
        transcript = self._screen.transcript
        async with self.lock:
            ids = [view.message.id for view in transcript.views]
            at = None if transcript.at_end else (select or ids[0])
            before = len(ids) if at is None or at not in ids else ids.index(at) + 1
            try:
                window = await self._window(self._screen.conversation, at, max(PAGE, min(before, MOST_MOUNTED)))
            except NotFoundError:  # the message is gone, or all of it
                window = await self._window(self._screen.conversation, None)
            await self._place(window, select, "nowhere" if select is None else "selected")

    def follow_summary(self) -> None:
        """Where the model tells older turns in short now, show that once it is there."""

        async def follow(conversation: str | None) -> None:
            await self._service.settle()
            if self._screen.conversation == conversation and not self._screen.replies.live:
                await self.refresh()

        if self._service.summarising:
            self._screen.start(follow(self._screen.conversation))


def usage_of(path: Sequence[Message]) -> Usage | None:
    """What the last reply of a branch cost, for the gauge; None where that is not known whole."""
    last = (path[-1].usage if path else None) or {}
    figures: dict[str, Any] = {name: last.get(name) for name in Usage.__dataclass_fields__}
    known = (isinstance(figure, int | float) and 0 <= figure < MOST_FIGURE for figure in figures.values())
    return Usage(**figures) if all(known) and figures["context_length"] else None
