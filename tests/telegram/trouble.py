"""What can go wrong with a call, on demand: before anything is done, or after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass
class Fault:
    """What goes wrong with the next calls of a method (`*`: of any), in one chat or all; `skip` of them go well."""

    method: str
    do: str
    chat: int | None = None
    skip: int = 0
    times: int = 1
    seconds: float = 0.0


def refuse(code: int, description: str, **parameters: Any) -> web.Response:
    answer: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    return web.json_response(answer | ({"parameters": parameters} if parameters else {}), status=code)


def kill(pid: int) -> None:
    """Kill the bot, at this very point."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _reset(pid: int, request: web.Request, *_: Any) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _hang(pid: int, request: web.Request, fault: Fault, *_: Any) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds)
    return await _reset(pid, request)


async def _kill(pid: int, request: web.Request, *_: Any) -> web.StreamResponse:
    kill(pid)
    return await _reset(pid, request)


async def _kill_half(pid: int, request: web.Request, fault: Fault, result: Any) -> web.StreamResponse:
    """Send half of the answer, and kill whoever reads it."""
    body = json.dumps({"ok": True, "result": result}).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    kill(pid)
    return response


async def _slow(pid: int, request: web.Request, fault: Fault, result: Any) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds)
    return web.json_response({"ok": True, "result": result})


async def _shuffled(pid: int, request: web.Request, fault: Fault, result: Any) -> web.StreamResponse:
    """Updates in another order, and each of them twice."""
    return web.json_response({"ok": True, "result": [*reversed(result), *result]})


async def _status(pid: int, request: web.Request, fault: Fault, *_: Any) -> web.StreamResponse:
    if fault.do == "429":
        # Telegram says whole seconds, from one up.
        return refuse(429, "Too Many Requests: retry later", retry_after=max(1, int(fault.seconds)))
    if fault.do == "409":
        return refuse(409, "Conflict: terminated by other getUpdates request")
    if fault.do == "400":
        return refuse(400, "Bad Request: that is no good")
    return web.Response(status=int(fault.do), text="<html>Bad Gateway</html>", content_type="text/html")


Before = Callable[[int, web.Request, Fault], Awaitable[web.StreamResponse]]
After = Callable[[int, web.Request, Fault, Any], Awaitable[web.StreamResponse]]
BEFORE: dict[str, Before] = {
    "reset_before": _reset,
    "hang": _hang,
    "kill_before": _kill,
    **dict.fromkeys(("429", "502", "500", "409", "400"), _status),
}
AFTER: dict[str, After] = {
    "reset_after": _reset,
    "hang_after": _hang,
    "kill_after": _kill,
    "kill_half": _kill_half,
    "slow": _slow,
    "shuffled": _shuffled,
}
