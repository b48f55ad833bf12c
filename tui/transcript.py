"""What was said, as far as it is looked at: a window on the branch shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from tui.message import ReplyView, SaidView, view_of

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.conversations import Message

PAGE = 20
"""Messages mounted at a time; each costs some twenty widgets."""
MOST_MOUNTED = 60

Loader = Callable[[str, int], "Awaitable[Sequence[Message]]"]
"""Gives the branch that ends in a message, at most so many messages of it, the oldest first."""

WELCOME = "Type a message and press Enter.\n/help shows the commands. What you say stays on this machine."


class Transcript(VerticalScroll):
    """Mounts the newest messages, and older ones as the person scrolls up to them."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._load: Loader | None = None
        self._older_than: str | None = None  # parent of the oldest message mounted
        self._parents: dict[Widget, str | None] = {}
        self._loading = False

    async def show(self, messages: Sequence[Message], load: Loader) -> dict[str, SaidView | ReplyView]:
        """Show the end of a branch in the place of what stood there; gives the widgets by message id."""
        self._load = load
        self._parents.clear()
        await self.remove_children()
        views = self._views(messages)
        if views:
            await self.mount_all(views.values())
        else:
            await self.mount(Static(WELCOME, classes="welcome"))
        self.anchor()
        self.scroll_end(animate=False)
        self.call_after_refresh(self._fill)
        return views

    async def add(self, view: Widget, parent: str | None = None) -> None:
        """Append something at the end, and let go of what has scrolled far away."""
        await self.query(".welcome").remove()
        if isinstance(view, SaidView | ReplyView):
            self._parents[view] = parent
        await self.mount(view)
        if self.is_anchored or self.scroll_offset.y >= self.max_scroll_y - 2:
            await self._trim()

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if new <= 0 < old and self._older_than is not None and not self._loading:
            self._loading = True
            self.run_worker(self._mount_older())

    async def _fill(self) -> None:
        """A tall terminal shows a page whole: there is nothing to scroll, so the next page comes by itself."""
        if self.max_scroll_y == 0 and self._older_than is not None and not self._loading:
            self._loading = True
            await self._mount_older()
            self.call_after_refresh(self._fill)

    async def _mount_older(self) -> None:
        try:
            if self._load is None or self._older_than is None:
                return
            older = await self._load(self._older_than, PAGE)
            first = self.children[0] if self.children else None
            height = self.virtual_size.height
            parents = dict(self._parents)
            views = self._views(older)
            self._parents = {**self._parents, **parents}
            await self.mount_all(views.values(), before=first)
            # The same lines stay in sight: as much as came above, so much further down.
            self.call_after_refresh(
                lambda: self.scroll_to(y=self.virtual_size.height - height, animate=False, force=True)
            )
        finally:
            self._loading = False

    def _views(self, messages: Sequence[Message]) -> dict[str, SaidView | ReplyView]:
        views = {message.id: view_of(message) for message in messages}
        for message in messages:
            self._parents[views[message.id]] = message.parent_id
        self._older_than = messages[0].parent_id if messages else None
        return views

    async def _trim(self) -> None:
        spare = list(self.children)[: max(0, len(self.children) - MOST_MOUNTED)]
        if not spare:
            return
        for widget in spare:
            self._parents.pop(widget, None)
        await self.remove_children(spare)
        oldest = next((child for child in self.children if child in self._parents), None)
        self._older_than = None if oldest is None else self._parents[oldest]
