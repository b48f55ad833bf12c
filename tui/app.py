"""The application around the chat screen: it owns the service, and closes it whichever way the chat ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.binding import Binding

from chatbot.errors import UserError
from chatbot.terminal import Graphics, graphics
from storage.errors import StorageError
from tui.chat_screen import ChatScreen
from tui.palette import ChatCommands

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from chatbot.settings import Settings

Opener = Callable[["Settings"], "AbstractAsyncContextManager[ChatService]"]

LEAVE_SCREEN = "\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[<u\x1b[?1049l\x1b[?25h"
"""Mouse and paste reports off, the screen from before, the cursor shown."""

LEAVE_WITHIN_S = 5.0
"""A terminal that was closed can block what Textual still wants to write to it; all is saved before that."""


class ChatbotApp(App[None]):
    """The terminal chat.

    Args:
        flags: settings given on the command line.
        conversation: the one to open; None: the last one.
        new: begin a new one.
        opener: opens the service, where it is not the real one.
    """

    TITLE = "chatbot"
    CSS_PATH = "chat.tcss"
    COMMANDS = {ChatCommands}
    VERTICAL_BREAKPOINTS = [(0, "low"), (12, "high")]
    BINDINGS = [Binding("ctrl+q", "quit", "Quit", priority=True)]

    def __init__(
        self,
        flags: dict[str, Any],
        *,
        conversation: str | None = None,
        new: bool = False,
        opener: Opener | None = None,
    ) -> None:
        super().__init__()
        self.chat = ChatScreen(conversation, new=new)
        self._flags = flags
        self.failure: Exception | None = None
        self.graphics: Graphics = "cells"
        self._opener = opener
        self._stack = AsyncExitStack()
        self._service: ChatService | None = None
        self._terminal: list[Any] | None = None

    def get_default_screen(self) -> ChatScreen:
        """The chat is there from the start: keys pressed before it is painted reach it."""
        return self.chat

    async def open_service(self) -> ChatService:
        """Open database and core; settings and both take a moment to import, which the screen does not wait for.

        Raises UserError or StorageError.
        """
        settings = (await asyncio.to_thread(import_module, "chatbot.settings")).Settings.load(**self._flags)
        self.graphics = settings.graphics or graphics(os.environ)
        opener: Opener | None = self._opener
        if opener is None:
            real = (await asyncio.to_thread(import_module, "chatbot.session")).open_service
            opener = partial(real, most_at_once=2)  # one person talks in one conversation, seldom in two
        service: ChatService = await self._stack.enter_async_context(opener(settings))
        self._service = service
        return service

    def give_up(self, failure: Exception) -> None:
        """Leave, and let the command line say why."""
        self.failure = failure
        self.exit()

    async def run_to_the_end(self) -> int:
        """Run; gives the exit code, 128 and its number after a signal."""
        loop = asyncio.get_running_loop()
        with suppress(Exception):  # no terminal, or Windows
            import termios

            self._terminal = termios.tcgetattr(sys.stdin)
        received: list[int] = []
        leaving: list[asyncio.Task[None]] = []

        def leave(number: signal.Signals) -> None:
            if not received:
                received.append(number)
                last_resort = threading.Timer(LEAVE_WITHIN_S, self._leave_now, (128 + number,))
                last_resort.daemon = True
                last_resort.start()
                leaving.append(loop.create_task(self._save_and_exit()))

        # SIGHUP: the terminal was closed. Ctrl-C is a key to Textual; SIGINT comes from elsewhere.
        for name in {"SIGINT", "SIGTERM", "SIGHUP"} & set(signal.Signals.__members__):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(signal.Signals[name], leave, signal.Signals[name])
        try:
            await self.run_async()
        finally:
            await self.close_service()
        return 128 + received[0] if received else self.return_code or 0

    def _leave_now(self, code: int) -> None:
        """Give the terminal back as it was, with what could not be saved on it."""
        with suppress(Exception):  # the terminal is gone, or half of us is
            if self._terminal is not None:
                import termios

                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._terminal)
            typed = self.chat.typed()
            left = f"What you had typed, and could not be saved:\n{typed}\n" if typed else ""
            os.write(2, f"{LEAVE_SCREEN}{left}".encode(errors="replace"))
        os._exit(code)

    async def _save_and_exit(self) -> None:
        try:
            await self.close_service()
        finally:
            self.exit()

    async def close_service(self) -> None:
        """Keep what was typed, end replies under way with what came of them, and give all back."""
        try:
            if self.chat.typed() or self._service is not None:
                await self.chat.keep_for_good(self._service or await self.open_service())
        except (UserError, StorageError) as error:
            self.failure = self.failure or error
        finally:
            await self._stack.aclose()


def run_app(flags: dict[str, Any], *, conversation: str | None, new: bool) -> int:
    """Run; gives the exit code. Raises what the chat could not open or save for, what was typed on stderr."""
    app = ChatbotApp(flags, conversation=conversation, new=new)
    code = asyncio.run(app.run_to_the_end())
    if isinstance(app.failure, UserError | StorageError):
        if typed := app.chat.typed():
            print(f"What you had typed:\n{typed}", file=sys.stderr)
        raise app.failure
    return code
