"""A process of its own for heavy work: it takes JSON lines on stdin, can be killed, and its end gives all back."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any


class Child:
    """A running `python -m MODULE`, which lives until its stdin closes: the kernel sees to that if we are killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, module: str, parameters: dict[str, Any]) -> Child:
        """Start it, and send it its parameters as the first line."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # modules of the folder the person stands in are none of its business
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2**24,
        )
        child = cls(process)
        try:
            await child.send(parameters)
        except BaseException:
            await child.close()
            raise
        return child

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.returncode is None

    async def send(self, line: dict[str, Any]) -> None:
        """Send one line. A dead child says so where its answer is read."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            await self._process.stdin.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next line it says; None once it has ended. What native libraries print between is passed over."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            with suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    return said
        return None

    async def close(self) -> None:
        """End it, by force where it does not end by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout=5)
        except TimeoutError:  # still in native code, loading
            await self.kill()

    async def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
