"""The server of the chat model, begun before the rest of the program is there."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatbot.child import Child


async def start_server(parameters: dict[str, Any]) -> tuple[Child, str]:
    """The process that runs llama.cpp, and the key it answers to."""
    key = secrets.token_urlsafe(24)
    return await Child.start("chatbot.engines.llamacpp_server", parameters | {"key": key}), key


class HeadStart:
    """Begins with what was loaded last, and gives that to whoever then loads the same.

    A program that answers once would else import everything first, and only then begin to load the model, which
    takes as long again.

    Args:
        file: where is noted what was loaded last.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._parameters: dict[str, Any] | None = None
        self._begun: tuple[Child, str] | None = None

    async def begin(self) -> None:
        """Start the server, where something was noted."""
        with suppress(OSError, ValueError):  # else it is begun when it is wanted
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            if isinstance(noted, dict) and Path(str(noted.get("path"))).is_file():
                self._begun = await start_server(noted)
                self._parameters = noted

    async def start(self, parameters: dict[str, Any]) -> tuple[Child, str]:
        """As `start_server`; mostly it is on its way."""
        begun, self._begun = self._begun, None
        if begun is not None:
            if parameters == self._parameters and begun[0].alive:
                return begun
            await begun[0].kill()
        self._note(parameters)
        return await start_server(parameters)

    def _note(self, parameters: dict[str, Any]) -> None:
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with suppress(OSError):  # the next start takes longer
            beside.write_text(json.dumps(parameters), encoding="utf-8")
            beside.replace(self._file)

    def forget(self) -> None:
        """Something else is loaded: next time nothing is begun."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    async def close(self) -> None:
        """End what nobody wanted."""
        begun, self._begun = self._begun, None
        if begun is not None:
            await begun[0].kill()
