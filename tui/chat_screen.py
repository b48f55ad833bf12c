"""The chat: transcript, composer, list of conversations and status line."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, TextArea

from chatbot.errors import MessageError, UserError
from chatbot.events import ConversationChanged, Event, Failed, Finished, Notice, Progress, Started, TextDelta, Usage
from chatbot.router import ToCommand, route
from storage.errors import StorageError
from tui.composer import Composer
from tui.dialogs import DeleteDialog, RenameDialog
from tui.drafts import NEW, Drafts
from tui.message import NoticeView, ReplyView, SaidView
from tui.sidebar import Sidebar
from tui.status import StatusLine
from tui.transcript import PAGE, Transcript

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from chatbot.commands import Command
    from storage.conversations import Conversation, Message
    from tui.app import ChatbotApp

"""Where the draft of a conversation that has no id yet is kept."""
DRAFT_AFTER_S = 0.4
FRAMES_PER_S = 25
NARROW = 80


@dataclass(slots=True)
class LiveReply:
    """A reply under way; `view` is there while its conversation is shown, and has been given `shown` characters."""

    conversation: str
    reply: str
    text: str = ""
    shown: int = 0
    view: ReplyView | None = None


class ChatScreen(Screen[None]):
    """Opens at once and takes typing; database and model join when they are ready."""

    AUTO_FOCUS = "#composer"
    BINDINGS = [
        Binding("ctrl+n", "new", "New"),
        Binding("ctrl+b", "toggle_sidebar", "List"),
        Binding("f2", "rename", "Rename"),
        Binding("f8", "delete", "Delete"),
        Binding("escape", "stop", "Stop", priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, conversation: str | None, *, new: bool) -> None:
        super().__init__()
        self.conversation: str | None = None
        self._wanted = conversation
        self._new = new
        self._service: ChatService | None = None
        self._held: list[str] = []  # sent before the database was open
        self._starting = False  # a message is on its way to the database
        self._shown = 0  # counts the times another conversation was shown
        self._live: dict[str, LiveReply] = {}
        self._drafts: Drafts | None = None
        self._draft_timer: Timer | None = None
        self._switching = asyncio.Lock()
        self._sidebar = Sidebar()
        self._transcript = Transcript()
        self._composer = Composer()
        self._status = StatusLine(markup=False)

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._sidebar
            with Vertical(id="main"):
                yield self._transcript
                yield self._composer
                yield self._status
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(1 / FRAMES_PER_S, self._flush)
        self.run_worker(self._open())

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW, "narrow")
        self.set_class(event.size.height < 12, "low")

    def on_key(self, event: events.Key) -> None:
        """What is typed anywhere goes to the composer; also what was typed before that had the focus."""
        if event.key == "enter":
            self._composer.submit()
        elif event.key in ("ctrl+j", "shift+enter"):
            self._composer.insert("\n")
        elif event.key == "backspace":
            self._composer.action_delete_left()
        elif event.is_printable and event.character is not None:
            self._composer.insert(event.character)
        else:
            return
        event.stop()
        self._composer.focus()

    def _run(self, work: Coroutine[Any, Any, None], *, group: str = "default", exclusive: bool = False) -> None:
        """Start work whose mistakes are told to the person."""

        async def guarded() -> None:
            try:
                await work
            except (UserError, StorageError) as error:
                await self._tell(str(error), error=True)

        self.run_worker(guarded(), group=group, exclusive=exclusive)

    # Opening

    async def _open(self) -> None:
        app = cast("ChatbotApp", self.app)
        try:
            self._service = service = await app.open_service()
            self._drafts = Drafts(service.conversations)
            await self._switch(await self._first(service), keep_typed=True)
        except (UserError, StorageError) as error:
            app.give_up(error)
            return
        for text in self._held:
            self._start(text)
        self._held.clear()
        await self._warm_up(service)

    async def _first(self, service: ChatService) -> str | None:
        if self._wanted is not None:
            return (await service.conversations.get(self._wanted)).id
        if await service.conversations.draft(NEW):  # what was being typed when the person left
            return None
        latest = [] if self._new else await service.conversations.list(limit=1)
        return latest[0].id if latest else None

    async def _warm_up(self, service: ChatService) -> None:
        """Load the model while the person types."""
        try:
            responder = await service.models.load(self._status.show_progress, await service.model(self.conversation))
        except (UserError, StorageError) as error:
            await self._tell(str(error), error=True)
            self._status.state = "no model"
        else:
            self._status.model = responder.name
            if not self._live:
                self._status.state = "ready"

    # Sending

    def on_composer_submitted(self, event: Composer.Submitted) -> None:
        event.stop()
        if self._starting or self._held or self.conversation in self._live:
            self._composer.give_back(event.text)
            self.notify("The reply before is still coming; Esc stops it.")
        elif not self._shown:  # not open yet, or which conversation it goes to is still being read
            self._held.append(event.text)
            self._status.state = "your message goes out as soon as the database is open"
        else:
            self._start(event.text)

    def offer(self, command: Command) -> None:
        """A command picked from the palette: run it, or let the person complete it."""
        if command.argument:
            self._composer.give_back(f"/{command.name} ")
        else:
            self._composer.post_message(Composer.Submitted(f"/{command.name}"))

    def _start(self, text: str) -> None:
        self._starting = True
        self._run(self._converse(text))

    async def _converse(self, text: str) -> None:
        """Send, and show what comes of it, wherever the person looks meanwhile."""
        assert self._service is not None
        conversation, shown, live = self.conversation, self._shown, None
        try:
            if not await self._agreed(text):
                return
            async with aclosing(self._service.send(conversation, text)) as stream:
                async for event in stream:
                    if isinstance(event, Started):
                        live = await self._begin(event, text, shown)
                    elif isinstance(event, TextDelta) and live is not None:
                        live.text += event.text
                    elif live is not None:
                        await self._during_reply(event, live)
                    else:
                        await self._from_command(event, text)
        finally:
            if live is None:
                self._starting = False
            else:
                self._live.pop(live.conversation, None)

    async def _agreed(self, text: str) -> bool:
        """Whether the person means it, where it is a command that destroys something."""
        assert self._service is not None
        with suppress(MessageError):  # the service says what is wrong with it
            routed = route(text)
            if self.conversation is not None and isinstance(routed, ToCommand) and routed.command.destroys:
                title = (await self._service.conversations.get(self.conversation)).title
                agreed = await self.app.push_screen_wait(DeleteDialog(title))
                return bool(agreed)
        return True

    async def _begin(self, started: Started, text: str, shown: int) -> LiveReply:
        assert self._service is not None
        live = self._live[started.conversation] = LiveReply(started.conversation, started.reply)
        self._starting = False
        async with self._switching:
            if self._shown == shown:  # the person still looks at it
                self.conversation = started.conversation
                assert self._drafts is not None
                await self._drafts.sent()
                await self._save_draft()
                path = await self._service.conversations.path(started.message, 1)
                await self._transcript.add(SaidView(text), path[0].parent_id if path else None)
                live.view = view = ReplyView()
                await self._transcript.add(view, started.message)
                self._transcript.anchor()
                self._transcript.scroll_end(animate=False)
        self._status.state = "reading"
        await self._refresh_sidebar()
        return live

    async def _during_reply(self, event: Event, live: LiveReply) -> None:
        here = self.conversation == live.conversation
        if isinstance(event, Progress):
            self._status.show_progress(event)
        elif isinstance(event, Usage) and here:
            self._status.usage = event
        elif isinstance(event, Finished | Failed):
            await self._show(live)
            self._live.pop(live.conversation, None)
            if live.view is not None:
                await live.view.end(_mark(event))
            self._status.state = "replying elsewhere" if self._live else "ready"
            if isinstance(event, Finished) and event.model and here:
                self._status.model = event.model
            await self._refresh_sidebar()

    async def _from_command(self, event: Event, text: str) -> None:
        if isinstance(event, Notice):
            await self._tell(event.text)
        elif isinstance(event, Progress):
            self._status.show_progress(event)
        elif isinstance(event, ConversationChanged):
            await self._switch(event.conversation)
        elif isinstance(event, Failed):
            await self._tell(event.text, error=True)
            self._composer.give_back(text)  # nothing typed is lost: it was not taken, so it stands there again

    async def _tell(self, text: str, *, error: bool = False) -> None:
        await self._transcript.add(NoticeView(text, "error" if error else "notice"))
        self._transcript.scroll_end(animate=False)

    # Streaming

    async def _flush(self) -> None:
        for live in list(self._live.values()):
            await self._show(live)

    async def _show(self, live: LiveReply) -> None:
        view = live.view
        if view is None or not view.is_attached or len(live.text) == live.shown:
            return
        piece, live.shown = live.text[live.shown :], len(live.text)
        if self._status.state != "replying":
            self._status.state = "replying"
        await view.append(piece)

    async def action_stop(self) -> None:
        if self.conversation is not None and self.conversation in self._live and self._service is not None:
            self.run_worker(self._service.stop(self.conversation))  # tells nothing but that it is done
        else:
            self._composer.focus()

    def action_page(self, direction: int) -> None:
        scrolled = self._sidebar if self._sidebar.has_focus else self._transcript
        scrolled.scroll_page_up() if direction < 0 else scrolled.scroll_page_down()

    # Conversations

    async def _switch(self, conversation: str | None, *, keep_typed: bool = False, save_typed: bool = True) -> None:
        """Show another conversation; a reply under way goes on, and is followed again on coming back."""
        async with self._switching:
            typed = ""
            if not keep_typed:  # what is typed while this goes on is for the conversation to be shown
                typed = self._composer.whole_text
                self._composer.put("")
            try:
                if save_typed and self._drafts is not None and not keep_typed:
                    await self._drafts.save(self.conversation, typed)
                await self._show_conversation(conversation)
            except BaseException:
                if typed:
                    self._composer.give_back(typed)
                raise
        await self._refresh_sidebar()
        self._composer.focus()

    async def _show_conversation(self, conversation: str | None) -> None:
        assert self._service is not None
        assert self._drafts is not None
        service = self._service
        await service.conversations.mark_interrupted()
        leaf = None if conversation is None else (await service.conversations.get(conversation)).leaf_id
        path = await service.conversations.path(leaf, PAGE)
        for live in self._live.values():
            live.view = None
        self.conversation = conversation
        self._shown += 1
        live_here = self._live.get(conversation or "")
        if live_here is not None:  # what came, from here rather than from the database
            path = [message for message in path if message.id != live_here.reply]
        await self._transcript.show(path, service.conversations.path)
        if live_here is not None:
            live_here.shown = 0
            live_here.view = view = ReplyView()
            await self._transcript.add(view, path[-1].id if path else None)
        self._status.usage = _usage(path)
        with suppress(UserError):  # one that is gone says so when it is asked
            self._status.model = await service.model(conversation)
        if draft := await self._drafts.open(conversation):  # beside what was typed before it could be read
            self._composer.give_back(draft)

    async def _refresh_sidebar(self) -> None:
        if self._service is not None:
            await self._sidebar.refresh_list(self._page, self.conversation)

    async def _page(self, limit: int, offset: int) -> Sequence[Conversation]:
        assert self._service is not None
        try:
            return await self._service.conversations.list(limit, offset)
        except StorageError as error:
            self.notify(str(error), severity="error", markup=False)
            return []

    def on_sidebar_chosen(self, event: Sidebar.Chosen) -> None:
        event.stop()
        self._run(self._switch(event.conversation))
        if self.has_class("narrow"):
            self.remove_class("list-shown")

    def action_new(self) -> None:
        if self._service is not None:
            self._run(self._switch(None))

    def action_toggle_sidebar(self) -> None:
        # On a wide screen the list is there unless it is hidden; on a narrow one it is not unless it is shown.
        self.toggle_class("list-shown" if self.has_class("narrow") else "list-hidden")
        (self._sidebar if self._sidebar.display else self._composer).focus()

    def action_rename(self) -> None:
        self._run(self._rename(), group="dialog", exclusive=True)

    def action_delete(self) -> None:
        self._run(self._delete(), group="dialog", exclusive=True)

    async def _rename(self) -> None:
        target = await self._target()
        if target is not None and (title := await self.app.push_screen_wait(RenameDialog(target.title))):
            assert self._service is not None
            await self._service.conversations.rename(target.id, title)
            await self._refresh_sidebar()

    async def _delete(self) -> None:
        target = await self._target()
        if target is not None and await self.app.push_screen_wait(DeleteDialog(target.title)):
            assert self._service is not None
            await self._service.delete(target.id)
            if target.id == self.conversation:
                await self._switch(None, save_typed=False)
            else:
                await self._refresh_sidebar()

    async def _target(self) -> Conversation | None:
        """The conversation that a key is about: the one under the cursor in the list, else the one shown."""
        chosen = self.conversation
        if self._sidebar.has_focus and self._sidebar.highlighted is not None:
            chosen = self._sidebar.get_option_at_index(self._sidebar.highlighted).id
        if self._service is None or chosen is None:
            self.notify("There is no conversation here yet.")
            return None
        return await self._service.conversations.get(chosen)

    # Drafts

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
        self._draft_timer = self.set_timer(DRAFT_AFTER_S, lambda: self._run(self.keep_draft()))

    async def keep_draft(self) -> None:
        """Save what is typed and not sent. Raises StorageError."""
        async with self._switching:
            await self._save_draft()

    async def keep_for_good(self, service: ChatService) -> None:
        """The same on leaving, with what was sent and never went out. Raises StorageError."""
        async with self._switching:
            drafts = self._drafts or Drafts(service.conversations)
            await drafts.save_for_good(self.conversation, self.typed())

    async def _save_draft(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        if self._drafts is not None:
            await self._drafts.save(self.conversation, self._composer.whole_text)

    def typed(self) -> str:
        """What was typed and has not gone out."""
        return "\n\n".join([*self._held, self._composer.whole_text]).strip()


def _mark(end: Finished | Failed) -> str:
    if isinstance(end, Failed):
        return end.text
    if not end.text and end.reason == "stop":
        return "the model said nothing"
    return {"stop": "", "length": "cut: the longest reply was reached", "stopped": "stopped"}[end.reason]


def _usage(path: Sequence[Message]) -> Usage | None:
    """What the last reply of a branch cost, for the gauge."""
    last = path[-1].usage if path else None
    return None if last is None else Usage(**last)
