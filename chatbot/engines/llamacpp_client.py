"""Asks llama.cpp's HTTP server: whole answers over http.client, streams over asyncio."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from chatbot.errors import ModelError

FRAME_S = 1 / 30
_FRAME_LIMIT = 16384  # far below any receive buffer


class LlamaCppClient:
    """The server at `address` (HOST:PORT), behind `key`; `name` is the model's, for what goes wrong.

    Every method raises ModelError where the server refuses, or is gone.
    """

    def __init__(self, name: str, address: str, key: str) -> None:
        self._name = name
        self._address = address
        self._key = key

    @contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection for `ask`."""
        connection = http.client.HTTPConnection(self._address)  # a kept one would be closed by the server when idle
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise ModelError(f"{self._name} stopped answering: {error or type(error).__name__}.") from None
        finally:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
        """Post `body`; returns the answer."""
        connection.request("POST", path, json.dumps(body), self._headers())
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ModelError(self._complaint(answer))
        return json.loads(answer)

    async def stream(self, path: str, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer; closing it closes the connection, and the server stops within a token.

        By hand over asyncio's streams: a client library, or a thread, costs a few percent of the decoding speed,
        since the model computes on all cores.
        """
        body = json.dumps(request).encode()
        headers = self._headers() | {"Host": self._address, "Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            reader, writer = await asyncio.open_connection(*self._address.rsplit(":", 1))
            try:
                writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
                status = (await reader.readline()).split(b" ", 2)[1:2]
                while (await reader.readline()).strip():
                    pass
                if status != [b"200"]:
                    raise ModelError(self._complaint(await reader.read()))
                waiting, came, began = b"", 0, 0.0
                while data := await reader.read(65536):
                    began = began or time.perf_counter()
                    came += len(data)
                    _wake_per_frame(writer, came, time.perf_counter() - began)
                    *lines, waiting = (waiting + data).split(b"\n")  # those of the chunked encoding say nothing here
                    for line in lines:
                        field, _, said = line.partition(b": ")
                        if field == b"error":
                            raise ModelError(self._complaint(said))
                        if field == b"data" and said.strip() == b"[DONE]":
                            return
                        if field == b"data":
                            event = json.loads(said)
                            if "error" in event:
                                raise ModelError(self._complaint(said))
                            yield event
            finally:
                writer.transport.abort()
        except (OSError, EOFError, ValueError) as error:
            raise ModelError(f"{self._name} stopped answering: {error or type(error).__name__}.") from None

    def _complaint(self, body: bytes) -> str:
        try:
            message = json.loads(body)
            message = message.get("error", message)["message"]
        except (ValueError, KeyError, TypeError, AttributeError):
            message = body.decode(errors="replace")[:200]
        return f"{self._name} refused: {message}."

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}


def _wake_per_frame(writer: asyncio.StreamWriter, came: int, elapsed_s: float) -> None:
    """Have the kernel hold back what is less than one frame of a screen's worth of a stream.

    The model computes on all cores: to wake for every token, as it comes, costs 2 to 3 percent of its speed. What
    ends the stream wakes at once.
    """
    enough = max(1, int(came / elapsed_s * FRAME_S)) if elapsed_s > FRAME_S else 1
    with suppress(AttributeError, OSError):  # a system without it wakes for every token
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(enough, _FRAME_LIMIT))
