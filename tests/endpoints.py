"""A real OpenAI-compatible server, llama.cpp's own, and a proxy in front of it that misbehaves on demand."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

MODEL = "smollm2"


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    key: str


class FaultyProxy:
    """Passes bytes on, or does what `fault` says, `times` times (0: until told otherwise). `asked`: requests so
    far."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._tasks: set[asyncio.Task[None]] = set()
        self.fault = ""
        self.times = 0
        self.asked = 0

    async def __aenter__(self) -> FaultyProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self._target.path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: read it whole, then pass it on or misbehave."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
            body = await reader.readexactly(length)
            self.asked += 1
            fault = self.fault
            if fault and self.times:
                self.times -= 1
                if not self.times:
                    self.fault = ""
            await self._answer(fault, head, body, writer)
        writer.close()

    async def _answer(self, fault: str, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        piece = (
            b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
        )
        piece += b'{"content":"The"},"finish_reason":null}]}\n\n'
        if fault == "down":
            return
        if fault == "silent":
            await asyncio.sleep(30)
        elif fault == "stalls":
            writer.write(stream + piece)
            await writer.drain()
            await asyncio.sleep(30)
        elif fault == "unfinished":
            writer.write(stream + piece)
        elif fault == "broken":
            writer.write(stream + b'data: {"choices": [{"delta": {"con\n\n')
        elif fault == "html":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Log in</html>"
            )
        elif fault == "401":
            writer.write(_refusal(401, "Unauthorized", "Incorrect API key provided"))
        elif fault == "429":
            writer.write(_refusal(429, "Too Many Requests", "slow down", b"Retry-After: 1\r\n"))
        elif fault == "429 for long":
            writer.write(_refusal(429, "Too Many Requests", "slow down", b"Retry-After: 60\r\n"))
        elif fault == "nulls":
            usage = (
                b'{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null,"prompt_tokens_details":null}'
            )
            end = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":%s}\n\n' % usage
            writer.write(stream + piece + end + b"data: [DONE]\n\n")
        elif fault == "tells the key":
            key = next(line.split()[2] for line in head.decode().split("\r\n") if "bearer" in line.lower())
            writer.write(_refusal(400, "Bad Request", f"{'the key ' * 36} {key} is of no use"))
        elif fault == "500":
            writer.write(_refusal(500, "Internal Server Error", "the cluster is on fire"))
        else:
            await self._pass_on(fault, head, body, writer)
        await writer.drain()

    async def _pass_on(self, fault: str, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        reader, upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        upstream.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]) + body)
        passed = 0
        while data := await reader.read(512):
            if fault == "slow":
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if fault == "cut" and passed > 2000:
                break  # in the middle of a chunk
        upstream.close()


def _refusal(status: int, reason: str, message: str, headers: bytes = b"") -> bytes:
    body = f'{{"error": {{"message": "{message}", "type": "error"}}}}'.encode()
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n".encode()
        + headers
        + b"\r\n"
        + body
    )
