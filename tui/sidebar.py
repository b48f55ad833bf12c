"""The list of conversations, the one last spoken in first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.records import Conversation


PAGE = 50
TITLE_WIDTH = 28

Loader = Callable[[int, "Conversation | None"], "Awaitable[Sequence[Conversation]]"]
"""Gives so many conversations, those that follow another in the list, or the first."""


class Sidebar(OptionList):
    """Reads a page at a time, more as the person moves down."""

    BINDINGS = [
        Binding("f5", "screen.duplicate", "Duplicate"),
        Binding("f6", "screen.export", "Export"),
    ]

    @dataclass
    class Chosen(Message):
        """The person picked a conversation."""

        conversation: str

    def __init__(self) -> None:
        super().__init__(id="sidebar", markup=False)
        self.border_title = "Conversations"
        self._load: Loader | None = None
        self._last: Conversation | None = None
        self._complete = False

    @property
    def under_cursor(self) -> str | None:
        """The conversation that the cursor is on, while the person is in the list."""
        if not self.has_focus or self.highlighted is None:
            return None
        return self.get_option_at_index(self.highlighted).id

    async def refresh_list(self, load: Loader, current: str | None) -> None:
        """Read as many as were shown, and mark the one that is open."""
        self._load = load
        current = self.under_cursor or current  # the person is browsing: leave the cursor there
        wanted = max(PAGE, self.option_count)
        found = await load(wanted, None)
        self._complete = len(found) < wanted
        self._last = found[-1] if found else None
        self.clear_options()
        self.add_options(_option(conversation) for conversation in found)
        for index, conversation in enumerate(found):
            if conversation.id == current:
                self.highlighted = index

    async def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_index >= self.option_count - 3:
            await self._read_on()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The mouse moves the list, and not its cursor."""
        super().watch_scroll_y(old_value, new_value)
        if self.max_scroll_y and new_value >= self.max_scroll_y - 6:
            self.run_worker(self._read_on(), exclusive=True)

    async def _read_on(self) -> None:
        if self._load is None or self._complete:
            return
        found = await self._load(PAGE, self._last)
        self._complete = len(found) < PAGE
        self._last = found[-1] if found else self._last
        known = {option.id for option in self.options}
        self.add_options(_option(conversation) for conversation in found if conversation.id not in known)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id is not None:
            self.post_message(self.Chosen(event.option_id))


def _option(conversation: Conversation) -> Option:
    title = conversation.title or "New conversation"
    if cell_len(title) > TITLE_WIDTH:
        title = f"{set_cell_size(title, TITLE_WIDTH - 1)}…"
    when = f"{conversation.updated.astimezone():%d %b %H:%M}"
    return Option(Content.assemble(title, "\n", (when, "dim")), id=conversation.id)
