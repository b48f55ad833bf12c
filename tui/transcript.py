"""What was said, as far as it is looked at: a window on the branch shown, and the message selected in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual import events
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.message import Message as Posted
from textual.widget import Widget
from textual.widgets import Static

from chatbot.errors import UserError
from storage.errors import StorageError
from tui.acts import ACTS, BY_NAME
from tui.message import MessageView, ReplyView, view_of

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.conversations import Conversations
    from storage.records import Message

PAGE = 20
"""Messages mounted at a time; each costs some twenty widgets."""
MOST_MOUNTED = 60

WELCOME = "Type a message and press Enter.\n/help shows the commands. What you say stays on this machine."


ScrollTo = Literal["end", "selected", "nowhere"]


@dataclass(frozen=True, slots=True)
class Window:
    """Some messages in a row of the branch that ends in `leaf_id`; `at_end` where nothing follows them."""

    messages: Sequence[Message]
    leaf_id: str | None
    at_end: bool = True


class Transcript(VerticalScroll, can_focus=True):
    """Mounts what is looked at, and more as the person scrolls to either end of it."""

    BINDINGS = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        *(Binding(act.key, f"act('{act.name}')", act.label, key_display=act.shown) for act in ACTS),
        Binding("enter", "act('menu')", "Menu"),
        Binding("end", "to_end", "To the end"),
        Binding("end", "scroll_end", show=False),
    ]

    @dataclass
    class Acted(Posted):
        """The person wants something done with a message: the name of an act, or `menu`."""

        act: str
        view: MessageView

    class Left(Posted):
        """The person moved on below the last message."""

    class EndWanted(Posted):
        """The person wants to see the end, which is not mounted."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self.selected: MessageView | None = None
        self.at_end = True
        self._conversations: Conversations | None = None
        self._leaf_id: str | None = None
        self._placing = False
        self._mounting = asyncio.Lock()

    @property
    def views(self) -> list[MessageView]:
        """The messages mounted, the oldest first."""
        return [child for child in self.children if isinstance(child, MessageView)]

    def view(self, message_id: str) -> MessageView | None:
        """Where a message is mounted."""
        return next((view for view in self.views if view.message.id == message_id), None)

    # Showing

    async def show(
        self, window: Window, conversations: Conversations, *, select: str | None = None, to: ScrollTo = "end"
    ) -> None:
        """Show a window in the place of what stood there; what is in both stays as it is."""
        self._conversations, self._leaf_id, self.at_end = conversations, window.leaf_id, window.at_end
        self._placing = True  # while widgets come and go it scrolls here and there, which asks for nothing
        kept = {message.id: view for message in window.messages if (view := self._same(message)) is not None}
        with self.app.batch_update():
            await self.remove_children([child for child in self.children if child not in kept.values()])
            waiting: list[Widget] = []
            for message in window.messages:
                if (view := kept.get(message.id)) is None:
                    waiting.append(view_of(message))
                    continue
                view.show(message)
                await self.mount_all(waiting, before=view)
                waiting = []
            if not window.messages:
                waiting.append(Static(WELCOME, classes="welcome"))
            await self.mount_all(waiting)
        self.call_after_refresh(self._settled)
        if self.selected is not None and not self.selected.is_attached:
            self.select(None)
        if select is not None and (view := self.view(select)) is not None:
            self.select(view, scroll=1 if to == "selected" else 0)
        if to == "end":
            self.to_end()
            self.call_after_refresh(self._fill)
        elif to == "selected":
            self.anchor(False)

    def _settled(self) -> None:
        self._placing = False

    def to_end(self) -> None:
        """Scroll down, and stay there while a reply grows."""
        self.anchor(self.at_end)
        self.scroll_end(animate=False)

    def _same(self, message: Message) -> MessageView | None:
        view = self.view(message.id)
        same = view is not None and (view.message.text, view.message.attached) == (message.text, message.attached)
        return view if same else None

    async def add(self, view: Widget) -> None:
        """Append something at the end, and let go of what has scrolled far away."""
        await self.query(".welcome").remove()
        await self.mount(view)
        if isinstance(view, MessageView):
            self._leaf_id = view.message.id
        if self.is_anchored or self.scroll_offset.y >= self.max_scroll_y - 2:
            await self._trim_above()

    # The window

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if new <= 0 < old:
            self._read_on(self._mount_older)
        elif new > old and new >= self.max_scroll_y - 1:
            if self.at_end and not self.is_anchored:
                self.anchor()
            elif not self.at_end:
                self._read_on(self._mount_newer)

    def _read_on(self, mount: Callable[[], object]) -> None:
        async def guarded() -> None:
            try:
                await mount()  # type: ignore[misc]  # it does await
            except (UserError, StorageError) as error:
                self.notify(str(error), severity="error", markup=False)

        if not self._placing and not self._mounting.locked():
            self.run_worker(guarded())

    async def _fill(self) -> None:
        """A tall terminal shows a page whole: there is nothing to scroll, so the next page comes by itself."""
        if self.max_scroll_y == 0 and await self._mount_older(trim=False):
            self.call_after_refresh(self._fill)

    async def _mount_older(self, *, trim: bool = True) -> bool:
        """Read and mount what stands above; False where there is nothing."""
        async with self._mounting:
            views = self.views
            if self._conversations is None or not views or views[0].message.parent_id is None:
                return False
            older = await self._conversations.path(views[0].message.parent_id, PAGE)
            if not views[0].is_attached:  # another branch is shown meanwhile
                return False
            self._keep_in_sight(views[0])
            await self.mount_all([view_of(message) for message in older], before=0)
            if trim:
                await self._trim_below()
            return bool(older)

    async def _mount_newer(self) -> bool:
        """Read and mount what stands below; False where there is nothing."""
        async with self._mounting:
            views = self.views
            if self._conversations is None or not views or self.at_end or self._leaf_id is None:
                return False
            newer = await self._conversations.following(self._leaf_id, views[-1].message.id, PAGE)
            if not views[-1].is_attached:
                return False
            self.at_end = newer is None or len(newer) < PAGE
            await self.mount_all([view_of(message) for message in newer or ()])
            await self._trim_above()
            return bool(newer)

    async def _trim_above(self) -> None:
        spare = list(self.children)[: max(0, len(self.children) - MOST_MOUNTED)]
        if spare:
            self._keep_in_sight(self.children[len(spare)])
            await self.remove_children(spare)

    async def _trim_below(self) -> None:
        spare = list(self.children)[MOST_MOUNTED:]
        if spare and not any(isinstance(view, ReplyView) and view.live for view in spare):
            self.at_end = False
            self.anchor(False)
            await self.remove_children(spare)

    def _keep_in_sight(self, widget: Widget) -> None:
        """Whatever comes or goes above: `widget` stays where it is on the screen."""
        before = widget.virtual_region.y

        def restore() -> None:
            if widget.is_attached and (moved := widget.virtual_region.y - before):
                y = self.scroll_offset.y + moved
                self.scroll_to(y=y, animate=False, force=True, immediate=True, release_anchor=False)

        self.call_after_refresh(restore)

    # Selecting

    def select(self, view: MessageView | None, *, scroll: int = 1) -> None:
        """Select a message, and bring it into sight: its beginning, with a `scroll` of -1 its end, with 0 nothing."""
        if self.selected is not None:
            self.selected.remove_class("selected")
        self.selected = view
        if view is not None:
            view.add_class("selected")
            if scroll:
                self.call_after_refresh(self._bring_into_sight, view, scroll)
        self.refresh_bindings()

    def select_last(self) -> bool:
        """Select the last message in sight; False where there is none."""
        bottom = self.scroll_offset.y + self._height
        in_sight = [view for view in self.views if view.virtual_region.y < bottom]
        if not in_sight:
            return False
        self.select(in_sight[-1], scroll=-1)
        self.focus()
        return True

    @property
    def _height(self) -> int:
        return self.scrollable_content_region.height

    def _bring_into_sight(self, view: MessageView, direction: int) -> None:
        if not view.is_attached:
            return
        region = view.virtual_region
        if region.height <= self._height:
            self.scroll_to_widget(view, animate=False, immediate=True)
        else:
            self.scroll_to(y=region.y if direction > 0 else region.bottom - self._height, animate=False)

    async def action_move(self, step: int) -> None:
        """To the message above or below; through one that is taller than the screen first."""
        if self.selected is None:
            self.select_last()
            return
        top, region = self.scroll_offset.y, self.selected.virtual_region
        if step > 0 and region.bottom > top + self._height:
            self.scroll_to(y=min(top + self._height - 1, region.bottom - self._height), animate=False)
            return
        if step < 0 and region.y < top:
            self.scroll_to(y=max(top - self._height + 1, region.y), animate=False)
            return
        views = self.views
        if views.index(self.selected) + step not in range(len(views)):
            await (self._mount_older() if step < 0 else self._mount_newer())
            views = self.views
        index = views.index(self.selected) + step
        if 0 <= index < len(views):
            self.select(views[index], scroll=step)
        elif step > 0:
            self.post_message(self.Left())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys act on a selected message alone, and where there is something to do."""
        if action == "act":
            return self.selected is not None and (
                parameters == ("menu",) or BY_NAME[str(parameters[0])].applies(self.selected.message)
            )
        if action == "to_end":
            return not self.at_end
        return True

    def action_act(self, name: str) -> None:
        if self.selected is not None:
            self.post_message(self.Acted(name, self.selected))

    def action_to_end(self) -> None:
        self.post_message(self.EndWanted())

    def on_click(self, event: events.Click) -> None:
        clicked = event.widget.ancestors_with_self if event.widget is not None else ()
        if view := next((node for node in clicked if isinstance(node, MessageView)), None):
            self.select(view, scroll=0)
            self.focus()
