"""The command palette: the commands of the one registry, and the keys of the screen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from chatbot.commands import COMMANDS

if TYPE_CHECKING:
    from tui.app import ChatbotApp


class ChatCommands(Provider):
    """Offers every command; one that takes an argument is put into the composer to be completed."""

    def _entries(self) -> Iterator[tuple[str, str, partial[None]]]:
        screen = cast("ChatbotApp", self.app).chat
        for command in COMMANDS.values():
            yield command.usage, command.help, partial(screen.offer, command)

    async def discover(self) -> Hits:
        for text, help, action in self._entries():
            yield DiscoveryHit(text, action, help=help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, help, action in self._entries():
            if (score := matcher.match(f"{text} {help}")) > 0:
                yield Hit(score, matcher.highlight(text), action, help=help)
