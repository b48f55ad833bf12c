"""What carries requests to the Bot API, against real sockets: whether a request that failed may have arrived."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from telegram import Bot
from telegram.error import NetworkError, TimedOut
from yarl import URL

from adapters.telegram.http import AiohttpRequest, _proxy_to, never_left
from chatbot.trace import without_secrets

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@asynccontextmanager
async def answering(answer: bytes, end: bytes = b"\r\n\r\n") -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that hears one request up to `end`, and gives that answer; and what it has heard."""
    heard = []

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(end))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_one, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


def ok(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def failure(url: str, answer: Answer | None = None, read_s: float = 5.0) -> NetworkError:
    server = await asyncio.start_server(answer, "127.0.0.1", 0) if answer else None
    port = server.sockets[0].getsockname()[1] if server else free_port()
    request = AiohttpRequest(4, read_s)
    try:
        with pytest.raises(NetworkError) as raised:
            await request.do_request(url.format(port=port), "POST")
        return raised.value
    finally:
        await request.shutdown()
        if server:
            server.close()


async def test_where_nothing_listens_it_never_left() -> None:
    assert never_left(await failure("http://127.0.0.1:{port}/"))


async def test_behind_a_proxy_that_is_down_it_never_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert never_left(await failure("http://telegram.invalid/"))


async def test_what_is_cut_after_it_was_heard_may_have_arrived() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert not never_left(await failure("http://127.0.0.1:{port}/", hang_up))


async def test_where_no_answer_comes_it_may_have_arrived() -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    error = await failure("http://127.0.0.1:{port}/", be_silent, read_s=0.2)
    assert isinstance(error, TimedOut)
    assert not never_left(error)


def test_the_proxy_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _proxy_to(URL("https://api.telegram.org/bot1")) is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert _proxy_to(URL("https://api.telegram.org/bot1")) == "http://proxy.example:3128"
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert _proxy_to(URL("https://api.telegram.org/bot1")) == "http://proxy.example:3128"
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("all_proxy", "socks5://proxy.example:1080")
    with pytest.raises(NetworkError, match="socks5 proxy"):
        _proxy_to(URL("https://api.telegram.org/bot1"))
    monkeypatch.setenv("no_proxy", "api.telegram.org")
    assert _proxy_to(URL("https://api.telegram.org/bot1")) is None


async def test_what_a_proxy_refuses_says_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n") as (port, _):
        monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{port}")
        error = await failure("https://telegram.invalid/bot1/getMe")
    assert never_left(error)
    assert "407" in str(error)
    assert "hunter2" not in str(error)
    assert without_secrets("me:hunter2@") == "me:***@"


async def test_the_proxy_hears_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(ok("{}")) as (port, heard):
        monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{port}")
        request = AiohttpRequest(4, 5.0)
        assert await request.do_request("http://telegram.invalid/bot1/getMe", "POST") == (200, b"{}")
        await request.shutdown()
    [head] = heard
    assert head.startswith(b"POST http://telegram.invalid/bot1/getMe ")
    assert b"proxy-authorization: basic bwu6d29yza==" in head.lower()


async def test_a_file_keeps_its_name() -> None:
    sent = {"message_id": 7, "date": 0, "chat": {"id": 1, "type": "private"}}
    async with answering(ok(json.dumps({"ok": True, "result": sent})), b"content of it") as (port, heard):
        request = AiohttpRequest(4, 5.0)
        bot = Bot("1:token", f"http://127.0.0.1:{port}/bot", request=request, get_updates_request=request)
        assert (await bot.send_document(1, b"content of it", filename="天气 report.md")).message_id == 7
        await request.shutdown()
    assert 'filename="天气 report.md"' in heard[0].decode()
