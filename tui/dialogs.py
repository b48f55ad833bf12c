"""Small questions over the chat."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label


class RenameDialog(ModalScreen[str | None]):
    """Asks for a title; None where the person changed their mind."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label("New title · Enter renames · Esc cancels", markup=False)
            yield Input(self._title)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip() or None)


class DeleteDialog(ModalScreen[bool]):
    """Asks before a conversation is deleted for good."""

    BINDINGS = [
        Binding("y,enter", "dismiss(True)", "Delete"),
        Binding("n,escape", "dismiss(False)", "Keep"),
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(f"Delete “{self._title}” and all that was said in it?", markup=False)
            yield Label("y deletes · n keeps", classes="hint", markup=False)
