"""Pictures from this program's own model, in a process of its own: torch is loaded only there."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.engines.base import MOST_PICTURES, Picture
from chatbot.errors import ModelError


class AigcGenerator:
    """An ImageGenerator over `chatbot.engines.aigc_server`."""

    def __init__(self, child: Child, name: str, styles: Sequence[str]) -> None:
        self._child = child
        self._name = name
        self._styles = tuple(styles)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._dead = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def load(cls, folder: Path, encoder: Path, name: str, *, threads: int = 0) -> AigcGenerator:
        """Load the model in `folder` and the text encoder in `encoder`. Raises ModelError."""
        parameters = {"model": str(folder), "encoder": str(encoder), "name": name, "threads": threads}
        child = await Child.start("chatbot.engines.aigc_server", parameters)
        try:
            said = await child.receive()
        except BaseException:
            await child.close()
            raise
        if said is None or "error" in said:
            await child.close()
            raise ModelError(said["error"] if said else f"{name} does not load: its process ended.")
        return cls(child, name, said["styles"])

    @property
    def name(self) -> str:
        return self._name

    @property
    def styles(self) -> Sequence[str]:
        return self._styles

    @property
    def alive(self) -> bool:
        return not self._dead and self._child.alive

    async def imagine(
        self, prompt: str, *, count: int = 1, seed: int | None = None, style: str = ""
    ) -> AsyncGenerator[Picture | str, None]:
        if not 1 <= count <= MOST_PICTURES:
            raise ModelError(f"One to {MOST_PICTURES} pictures can be made at once.")
        number = next(self._numbers)
        answers = self._waiting[number] = asyncio.Queue()
        ended = False
        try:
            if self._dead:
                answers.put_nowait(self._death())
            request = {"id": number, "prompt": prompt, "count": count, "seed": seed, "style": style}
            await self._child.send(request)
            while not ended:
                said = await answers.get()
                if "error" in said:
                    ended = True
                    raise ModelError(said["error"])
                if "notice" in said:
                    yield said["notice"]
                elif "png" in said:
                    yield Picture(base64.b64decode(said["png"]), said["seed"], said["style"])
                else:
                    ended = True
        finally:
            del self._waiting[number]
            if not ended:
                await self._child.send({"id": number, "stop": True})

    async def close(self) -> None:
        await self._child.close()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        while (said := await self._child.receive()) is not None:
            if (answers := self._waiting.get(said.get("id", -1))) is not None:
                answers.put_nowait(said)
        self._dead = True
        for answers in self._waiting.values():
            answers.put_nowait(self._death())

    def _death(self) -> dict[str, Any]:
        return {"error": f"{self._name} stopped answering: its process ended."}
