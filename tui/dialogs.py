"""Small questions over the chat."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from tui.acts import Act


class LineDialog(ModalScreen[str | None]):
    """Asks for a line of text; None where the person changed their mind."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, text: str = "") -> None:
        super().__init__()
        self._question = question
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            yield Input(self._text)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class ConfirmDialog(ModalScreen[bool]):
    """Asks before something is done that cannot be undone."""

    BINDINGS = [
        Binding("y,enter", "dismiss(True)", "Yes"),
        Binding("n,escape", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str, hint: str) -> None:
        super().__init__()
        self._question = question
        self._hint = hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, markup=False)
            yield Label(self._hint, classes="hint", markup=False)


class DeleteDialog(ConfirmDialog):
    """Asks before a conversation or a message is deleted for good."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Delete {what}? This cannot be undone.", "y deletes · n keeps")


class ActsMenu(ModalScreen[str | None]):
    """What can be done with the message selected, each with its key; gives the name of an act."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(self, acts: Sequence[Act]) -> None:
        super().__init__()
        self._acts = acts

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog menu"):
            yield OptionList(
                *(
                    Option(Content.assemble((f" {act.shown} ", "bold"), f" {act.label}: {act.help}"), id=act.name)
                    for act in self._acts
                ),
                markup=False,
            )

    def on_key(self, event: events.Key) -> None:
        if act := next((act for act in self._acts if act.key == event.key), None):
            event.stop()  # or it would act again on the screen below
            self.dismiss(act.name)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)
