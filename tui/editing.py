"""Editing something said before: the composer takes its text and keeps the draft that stood there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui.composer import Composer

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.records import Message


@dataclass(frozen=True, slots=True)
class Edit:
    """A message that is being edited, and the draft that comes back afterwards."""

    message: Message
    draft: str


class Editing:
    """Lends the composer to a message. What was changed and left is there again when it is taken up again."""

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._left: dict[str, str] = {}
        self.current: Edit | None = None

    def begin(self, message: Message, text: str | None = None) -> None:
        """Put the text of a message into the composer, or `text`, what it had become."""
        if self.current is not None:
            self.leave()
        self.current = Edit(message, self._composer.whole_text)
        self._composer.put(text or self._left.pop(message.id, message.text))
        self._composer.border_title = "Editing · Enter sends it beside · Esc leaves"
        self._composer.focus()

    def end(self) -> Edit:
        """Give the draft back; the text is on its way."""
        assert self.current is not None
        edit, self.current = self.current, None
        self._composer.border_title = None
        self._composer.put(edit.draft)
        return edit

    def leave(self) -> bool:
        """Give the draft back without sending; True where a change is kept for the next time."""
        changed = self.changed
        edit = self.end()
        if changed:
            self._left[edit.message.id] = changed
        return bool(changed)

    @property
    def changed(self) -> str:
        """What the text has become; empty where it is as it was."""
        text = self._composer.whole_text
        return text if self.current is not None and text.strip() != self.current.message.text.strip() else ""

    def typed(self) -> str:
        """The draft, and what was changed: all that would be lost."""
        if self.current is None:
            return self._composer.whole_text
        return "\n\n".join(filter(None, (self.current.draft, self.changed)))
