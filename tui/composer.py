"""Where a person types: Enter sends, shift+enter and ctrl+j make a new line."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.document._document import EditResult
from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit

LARGE_PASTE = 20_000
"""Characters from which a pasted text is kept aside: laying out a megabyte takes seconds at every key."""


class Composer(TextArea):
    """A multi-line composer. A large pasted text stands in it as one short mark, and is sent whole."""

    @dataclass
    class Submitted(Message):
        """The person pressed Enter; `text` is whole, with what was pasted."""

        text: str

    class Left(Message):
        """The person moved up out of an empty composer."""

    def __init__(self) -> None:
        super().__init__(
            id="composer",
            soft_wrap=True,
            highlight_cursor_line=False,
            placeholder="Write a message · Enter sends · Ctrl+J new line",
        )
        self._pasted: dict[str, str] = {}

    @property
    def whole_text(self) -> str:
        """What is typed, with pasted texts in the place of their marks."""
        text = self.text
        for mark, pasted in self._pasted.items():
            text = text.replace(mark, pasted)
        return text

    def put(self, text: str) -> None:
        """Replace what stands there, the cursor at its end."""
        self._pasted.clear()
        self.text = self._folded(text) if len(text) > LARGE_PASTE else text
        self.move_cursor(self.document.end)

    def submit(self) -> None:
        """Send what stands there, and be empty for what is typed next."""
        text = self.whole_text
        if text.strip():
            self.put("")
            self.post_message(self.Submitted(text))

    def give_back(self, text: str) -> None:
        """Put back what was not taken, before what has been typed since."""
        self.put(f"{text}\n{self.whole_text}" if self.text else text)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.submit()
        elif event.key in ("shift+enter", "ctrl+j"):  # many terminals send both as a line feed
            event.stop()
            event.prevent_default()
            self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        if self.text:
            super().action_cursor_up(select)
        else:
            self.post_message(self.Left())

    def edit(self, edit: Edit) -> EditResult:
        """Take a pasted text as one thing: with half a mark it could not be found again."""
        start, end = sorted((edit.from_location, edit.to_location))
        for mark in self._pasted:
            for row, line in enumerate(self.document.lines):
                column = line.find(mark)
                if column < 0:
                    continue
                left, right = (row, column), (row, column + len(mark))
                if start == end and left < start < right:  # typed into it: goes behind it
                    start = end = right
                elif start < right and left < end:
                    start, end = min(start, left), max(end, right)
        return super().edit(Edit(edit.text, start, end, edit.maintain_selection_offset))

    async def _on_paste(self, event: events.Paste) -> None:
        if len(event.text) > LARGE_PASTE:  # anything else is pasted by the text area, which is called after this
            event.stop()
            event.prevent_default()
            self.insert(self._folded(event.text))

    def _folded(self, text: str) -> str:
        mark = f"⟦pasted text {len(self._pasted) + 1}: {len(text):,} characters⟧"
        self._pasted[mark] = text
        return mark
