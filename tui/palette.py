"""The command palette: the commands of the one registry, what can be done with a message selected, and exporting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from chatbot.commands import COMMANDS
from tui.acts import ACTS

if TYPE_CHECKING:
    from tui.app import ChatbotApp


class ChatCommands(Provider):
    """Offers every command; one that takes an argument is put into the composer to be completed."""

    def _entries(self) -> Iterator[tuple[str, str, Callable[[], None]]]:
        screen = cast("ChatbotApp", self.app).chat
        if (view := screen.transcript.selected) is not None:
            for act in ACTS:
                if act.applies(view.message):
                    entry = f"this message: {act.label} ({act.shown})"
                    yield entry, act.help, partial(screen.transcript.action_act, act.name)
        for command in COMMANDS.values():
            yield command.usage, command.help, partial(screen.offer, command)
        yield "export", "write the conversation to a file", screen.action_export

    async def discover(self) -> Hits:
        for text, help, action in self._entries():
            yield DiscoveryHit(text, action, help=help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, help, action in self._entries():
            if (score := matcher.match(f"{text} {help}")) > 0:
                yield Hit(score, matcher.highlight(text), action, help=help)
