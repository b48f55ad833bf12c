"""The application around the chat screen: it owns the service, and closes it whichever way the chat ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING

from textual.app import App
from textual.binding import Binding

from chatbot.settings import Settings
from tui.chat_screen import ChatScreen
from tui.palette import ChatCommands

if TYPE_CHECKING:
    from chatbot.chat import ChatService

Opener = Callable[[Settings], "AbstractAsyncContextManager[ChatService]"]


class ChatbotApp(App[None]):
    """The terminal chat.

    Args:
        settings: of the whole program.
        conversation: the one to open; None: the last one.
        new: begin a new one.
        opener: opens the service, where it is not the real one.
    """

    TITLE = "chatbot"
    CSS_PATH = "chat.tcss"
    COMMANDS = {ChatCommands}  # noqa: RUF012 - Textual declares it so
    BINDINGS = [Binding("ctrl+q", "quit", "Quit", priority=True)]  # noqa: RUF012

    def __init__(
        self,
        settings: Settings,
        *,
        conversation: str | None = None,
        new: bool = False,
        opener: Opener | None = None,
    ) -> None:
        super().__init__()
        self.chat = ChatScreen(conversation, new=new)
        self.settings = settings
        self.failure: Exception | None = None
        self._opener = opener
        self._stack = AsyncExitStack()

    def get_default_screen(self) -> ChatScreen:
        """The chat is there from the start: keys pressed before it is painted reach it."""
        return self.chat

    async def open_service(self) -> ChatService:
        """Open database and core; both take a moment to import, which the screen does not wait for."""
        opener = self._opener
        if opener is None:
            opener = (await asyncio.to_thread(import_module, "chatbot.session")).open_service
        return await self._stack.enter_async_context(opener(self.settings))

    def give_up(self, failure: Exception) -> None:
        """Leave, and let the command line say why."""
        self.failure = failure
        self.exit()

    async def run_to_the_end(self) -> None:
        """Run; then keep what was typed, end replies under way with what came of them, and close."""
        loop = asyncio.get_running_loop()
        for name in {"SIGTERM", "SIGHUP"} & set(signal.Signals.__members__):  # SIGHUP: the terminal was closed
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(signal.Signals[name], self.exit)
        try:
            await self.run_async()
        finally:
            try:
                await self.chat.keep_draft()
            finally:
                await self._stack.aclose()


def run_app(settings: Settings, *, conversation: str | None, new: bool) -> int:
    """Raises what the chat could not open for, with what was typed meanwhile on stderr."""
    app = ChatbotApp(settings, conversation=conversation, new=new)
    asyncio.run(app.run_to_the_end())
    if app.failure is not None:
        if typed := app.chat.typed():
            print(f"What you had typed:\n{typed}", file=sys.stderr)
        raise app.failure
    return app.return_code or 0
