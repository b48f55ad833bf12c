"""The list of conversations, the one last spoken in first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.conversations import Conversation


PAGE = 50
TITLE_WIDTH = 28

Loader = Callable[[int, int], "Awaitable[Sequence[Conversation]]"]
"""Gives so many conversations, from so far down the list."""


class Sidebar(OptionList):
    """Reads a page at a time, more as the person moves down."""

    @dataclass
    class Chosen(Message):
        """The person picked a conversation."""

        conversation: str

    def __init__(self) -> None:
        super().__init__(id="sidebar", markup=False)
        self.border_title = "Conversations"
        self._load: Loader | None = None
        self._complete = False

    async def refresh_list(self, load: Loader, current: str | None) -> None:
        """Read as many as were shown, and mark the one that is open."""
        self._load = load
        if self.has_focus and self.highlighted is not None:  # the person is browsing: leave the cursor there
            current = self.get_option_at_index(self.highlighted).id
        wanted = max(PAGE, self.option_count)
        found = await load(wanted, 0)
        self._complete = len(found) < wanted
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
        found = await self._load(PAGE, self.option_count)
        self._complete = len(found) < PAGE
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
