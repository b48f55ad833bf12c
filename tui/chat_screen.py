"""The chat: transcript, composer, list of conversations and status line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, TextArea

from chatbot.errors import MessageError, UserError
from chatbot.events import Event
from chatbot.router import ToCommand, route
from chatbot.terminal import Graphics
from storage.errors import StorageError
from tui.acts import BY_KEY
from tui.composer import Composer
from tui.conversation_actions import ConversationActions, delete_dialog
from tui.dialogs import DeleteDialog
from tui.drafts import Drafts
from tui.editing import Edit, Editing
from tui.message import NoticeView, ReplyView
from tui.message_actions import MessageActions
from tui.opening import Opening
from tui.picture import Shown
from tui.replies import Replies
from tui.search_screen import Asked, Found, SearchScreen
from tui.sidebar import Sidebar
from tui.status import StatusLine
from tui.transcript import Transcript

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from chatbot.commands import Command
    from storage.records import Conversation
    from tui.app import ChatbotApp

DRAFT_AFTER_S = 0.4
FRAMES_PER_S = 25
NARROW = 80


class ChatScreen(Screen[None]):
    """Opens at once and takes typing; database and model join when they are ready."""

    AUTO_FOCUS = "#composer"
    BINDINGS = [
        Binding("ctrl+n", "new", "New"),
        Binding("ctrl+b", "toggle_sidebar", "List"),
        Binding("ctrl+f", "search", "Search", priority=True),
        Binding("shift+tab", "messages", "Messages", key_display="⇧tab"),
        Binding("f2", "rename", "Rename"),
        Binding("f8", "delete", "Delete"),
        Binding("escape", "stop", "Stop", priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, conversation: str | None, *, new: bool) -> None:
        super().__init__()
        self.conversation: str | None = None
        self.sidebar = Sidebar()
        self.transcript = Transcript()
        self.composer = Composer()
        self.status = StatusLine(markup=False)
        self.opening = Opening(self)
        self.replies = Replies(self)
        self.editing = Editing(self.composer)
        self._messages = MessageActions(self)
        self._conversations = ConversationActions(self)
        self._asked = Asked()
        self._found: Found | None = None
        self._wanted = conversation
        self._new = new
        self._service: ChatService | None = None
        self._held: list[str] = []  # sent before the database was open
        self._drafts: Drafts | None = None
        self._draft_timer: Timer | None = None

    @property
    def is_open(self) -> bool:
        return self._service is not None

    @property
    def service(self) -> ChatService:
        """Once `is_open`."""
        assert self._service is not None
        return self._service

    @property
    def graphics(self) -> Graphics:
        """How the terminal shows pictures."""
        return cast("ChatbotApp", self.app).graphics

    @property
    def drafts(self) -> Drafts:
        """Once `is_open`."""
        assert self._drafts is not None
        return self._drafts

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self.sidebar
            with Vertical(id="main"):
                yield self.transcript
                yield self.composer
                yield self.status
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(1 / FRAMES_PER_S, self.replies.flush)
        self.run_worker(self._open())

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW, "narrow")

    def on_key(self, event: events.Key) -> None:
        """What is typed anywhere goes to the composer; also what was typed before that had the focus."""
        if (bound := self.active_bindings.get(event.key)) is not None and bound.node is self.focused:
            return
        if self.transcript.has_focus and self.transcript.selected is not None and event.key in BY_KEY:
            event.stop()
            self.notify(f"{BY_KEY[event.key].label} is not for this message.")
            return
        if event.key == "enter":
            self.composer.submit()
        elif event.key in ("ctrl+j", "shift+enter"):
            self.composer.insert("\n")
        elif event.key == "backspace":
            self.composer.action_delete_left()
        elif event.is_printable and event.character is not None:
            self.composer.insert(event.character)
        else:
            return
        event.stop()
        self.composer.focus()

    def on_paste(self, event: events.Paste) -> None:
        """Pasted anywhere, too."""
        if not self.composer.has_focus:
            self.composer.focus()
            self.composer.post_message(events.Paste(event.text))

    def start(self, work: Coroutine[Any, Any, None], *, group: str = "default", exclusive: bool = False) -> None:
        """Start work whose mistakes are told to the person."""

        async def guarded() -> None:
            try:
                await work
            except (UserError, StorageError) as error:
                await self.tell(str(error), error=True)

        self.run_worker(guarded(), group=group, exclusive=exclusive)

    # Opening

    async def _open(self) -> None:
        app = cast("ChatbotApp", self.app)
        try:
            self._service = service = await app.open_service()
            self._drafts = Drafts(service.conversations)
            await self.opening.switch(await self.opening.first(self._wanted, new=self._new), keep_typed=True)
        except (UserError, StorageError) as error:
            app.give_up(error)
            return
        for text in self._held:
            self._take(text)
        self._held.clear()
        await self._warm_up(service)

    async def _warm_up(self, service: ChatService) -> None:
        """Load the model while the person types."""
        try:
            responder = await service.models.load(self.status.show_progress, await service.model(self.conversation))
        except (UserError, StorageError) as error:
            await self.tell(str(error), error=True)
            self.status.state = "no model"
        else:
            self.status.model = responder.name
            if not self.replies.live:
                self.status.state = "ready"

    # Sending

    @property
    def _is_busy(self) -> bool:
        return bool(self.replies.starting or self._held or self.conversation in self.replies.live)

    def on_composer_submitted(self, event: Composer.Submitted) -> None:
        event.stop()
        if self._is_busy:
            self.composer.give_back(event.text)
            self.notify("The reply before is still coming; Esc stops it.")
        elif not self.opening.shown:  # not open yet, or which conversation it goes to is still being read
            self._held.append(event.text)
            self.status.state = "your message goes out as soon as the database is open"
        else:
            self._take(event.text)

    async def on_composer_left(self, event: Composer.Left) -> None:
        event.stop()
        if self.transcript.selected is None:
            self.action_messages()
        else:  # a second key, before the focus has moved
            await self.transcript.action_move(-1)

    def offer(self, command: Command) -> None:
        """A command picked from the palette: run it, or let the person complete it."""
        if command.argument and command.name not in ("search", "edit"):  # those have a place of their own
            self.composer.give_back(f"/{command.name} ")
        else:
            self.composer.post_message(Composer.Submitted(f"/{command.name}"))

    def _take(self, text: str) -> None:
        """Do what was sent: answer it, run it, or let it stand in for what was said before."""
        if self.editing.current is not None:
            self._send_edit(self.editing.end(), text)
            return
        with suppress(MessageError):  # the service says what is wrong with it
            routed = route(text)
            if isinstance(routed, ToCommand) and routed.command.name == "search":
                self._search(routed.argument)
                return
            if isinstance(routed, ToCommand) and routed.command.name == "edit" and not routed.argument:
                self._edit_last()
                return
        self.replies.starting = True
        self.start(self._send(text))

    async def _send(self, text: str) -> None:
        try:
            if not await self._agreed(text):
                return
        finally:
            self.replies.starting = False
        await self.replies.hear(self.service.send(self.conversation, text), lambda: self.composer.give_back(text))

    def _send_edit(self, edit: Edit, text: str) -> None:
        message = edit.message
        self.follow(
            self.service.edit(message.conversation_id, message.id, text), lambda: self.editing.begin(message, text)
        )

    def _edit_last(self) -> None:
        async def begin(conversation: str) -> None:
            said = await self.service.last_said(conversation)
            self.editing.begin(await self.service.conversations.message(said))

        if self.conversation is None:
            self.notify("You have said nothing here yet.")
        else:
            self.start(begin(self.conversation))

    def follow(self, turn: AsyncGenerator[Event, None], not_taken: Callable[[], None] = lambda: None) -> None:
        """Hear a turn on another branch; `not_taken` gives back what was typed for it."""
        if self._is_busy:
            self.notify("The reply before is still coming; Esc stops it.")
            not_taken()
        else:
            self.replies.starting = True
            self.start(self.replies.hear(turn, not_taken))

    async def _agreed(self, text: str) -> bool:
        """Whether the person means it, where it is a command that destroys something."""
        with suppress(MessageError):  # the service says what is wrong with it
            routed = route(text)
            destroys = routed.command.destroys if isinstance(routed, ToCommand) else ""
            if destroys == "everything" or (destroys and self.conversation is not None):
                dialog = DeleteDialog("everything of yours, in all conversations")
                if destroys == "conversation" and self.conversation is not None:
                    dialog = delete_dialog(await self.service.conversations.get(self.conversation))
                agreed = await self.app.push_screen_wait(dialog)
                return bool(agreed)
        return True

    async def tell(self, text: str, *, error: bool = False) -> None:
        """Say something that is no part of the conversation."""
        if not self.transcript.at_end:
            self.notify(text, severity="error" if error else "information", markup=False)
            return
        await self.transcript.add(NoticeView(text, "error" if error else "notice"))
        self.transcript.scroll_end(animate=False)

    # Keys

    async def action_stop(self) -> None:
        if self.conversation is not None and self.conversation in self.replies.live:
            self.run_worker(self.service.stop(self.conversation))  # tells nothing but that it is done
        elif self.editing.current is not None:
            if self.editing.leave():
                self.notify("Your change is kept: Edit takes it up again.")
        else:
            self.remove_class("list-shown")  # where it hides the composer
            self.composer.focus()

    def action_page(self, direction: int) -> None:
        scrolled = self.sidebar if self.sidebar.has_focus else self.transcript
        scrolled.scroll_page_up() if direction < 0 else scrolled.scroll_page_down()

    def action_messages(self) -> None:
        """Select a message."""
        self.transcript.select_last()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if event.widget is not self.transcript:
            self.transcript.select(None)

    def on_transcript_acted(self, event: Transcript.Acted) -> None:
        self.start(self._messages.do(event.act, event.view))

    def on_reply_view_pictures_wanted(self, event: ReplyView.PicturesWanted) -> None:
        self.start(self._show_pictures(event.view))

    async def _show_pictures(self, view: ReplyView) -> None:
        attachments = self.service.store.attachments
        for kept in await attachments.of_messages([view.message.id]):
            if kept.media_type.startswith("image/") and view.is_attached:
                await view.add_picture(Shown.of(kept, attachments.path(kept.id)), self.graphics)

    def on_transcript_left(self, event: Transcript.Left) -> None:
        self.composer.focus()

    def on_transcript_end_wanted(self, event: Transcript.EndWanted) -> None:
        self.start(self.opening.to_end())

    def action_search(self) -> None:
        self._search("")

    def _search(self, words: str) -> None:
        def go(found: Found | None) -> None:
            self._found = found

        if self.is_open:
            self._asked.words = words or self._asked.words
            self.app.push_screen(SearchScreen(self.service.store.search, self.conversation, self._asked), go)

    def on_screen_resume(self) -> None:
        """What was found is shown once this screen is: what is in sight can be told only then."""
        if self._found is not None:
            found, self._found = self._found, None
            self.start(self.opening.switch(found.conversation, at=found.message))

    # Conversations

    async def refresh_sidebar(self) -> None:
        if self.is_open:
            await self.sidebar.refresh_list(self._page, self.conversation)

    async def _page(self, limit: int, after: Conversation | None) -> Sequence[Conversation]:
        try:
            return await self.service.conversations.list(limit, after)
        except StorageError as error:
            self.notify(str(error), severity="error", markup=False)
            return []

    def on_sidebar_chosen(self, event: Sidebar.Chosen) -> None:
        event.stop()
        self.start(self.opening.switch(event.conversation))
        if self.has_class("narrow"):
            self.remove_class("list-shown")

    def action_new(self) -> None:
        if self.is_open:
            self.start(self.opening.switch(None))

    def action_toggle_sidebar(self) -> None:
        # On a wide screen the list is there unless it is hidden; on a narrow one it is not unless it is shown.
        self.toggle_class("list-shown" if self.has_class("narrow") else "list-hidden")
        (self.sidebar if self.sidebar.display else self.composer).focus()

    def action_rename(self) -> None:
        self.start(self._conversations.rename(), group="dialog", exclusive=True)

    def action_delete(self) -> None:
        self.start(self._conversations.delete(), group="dialog", exclusive=True)

    def action_duplicate(self) -> None:
        self.start(self._conversations.duplicate(), group="dialog", exclusive=True)

    def action_export(self) -> None:
        self.start(self._conversations.export(), group="dialog", exclusive=True)

    # Drafts

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        if self._draft_timer is not None:
            self._draft_timer.stop()
        self._draft_timer = self.set_timer(DRAFT_AFTER_S, lambda: self.start(self.keep_draft()))

    async def keep_draft(self) -> None:
        """Save what is typed and not sent. Raises StorageError."""
        async with self.opening.lock:
            await self.save_draft()

    async def keep_for_good(self, service: ChatService) -> None:
        """The same on leaving, with what was sent and never went out. Raises StorageError."""
        async with self.opening.lock:
            drafts = self._drafts or Drafts(service.conversations)
            await drafts.save_for_good(self.conversation, self.typed())

    async def save_draft(self) -> None:
        """The same while the lock is held."""
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        if self._drafts is not None:
            await self._drafts.save(self.conversation, self.editing.typed())

    def typed(self) -> str:
        """What was typed and has not gone out."""
        return "\n\n".join([*self._held, self.editing.typed()]).strip()
