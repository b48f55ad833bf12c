"""Carries requests to the Bot API, by aiohttp: a hundred at once cost it a fifth of what they cost httpx."""

from __future__ import annotations

import logging
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData
from yarl import URL

from adapters.telegram.logs import tell

CONNECT_S = 10.0
"""To wait for a connection, from those kept or a new one."""

SEND_S, UPLOAD_S = 5.0, 60.0
"""To write a request, without files and with some."""

IDLE_S = 5.0
"""A connection that rests longer is closed: the server might close it just as the next request leaves."""

_NEVER_LEFT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


def never_left(error: BaseException) -> bool:
    """Whether what failed so was surely not carried out, as there was no connection yet."""
    return isinstance(error.__cause__, _NEVER_LEFT)


class AiohttpRequest(BaseRequest):
    """What python-telegram-bot asks of one that carries its requests. Proxies are those of the environment.

    Args:
        connections: how many there may be at once.
        read_s: how long the server may keep silent, in seconds.
    """

    def __init__(self, connections: int, read_s: float) -> None:
        self._connections = connections
        self._read_s = read_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def read_timeout(self) -> float:
        return self._read_s

    async def initialize(self) -> None:
        """Nothing: the first request opens it, inside the loop to which it then belongs."""

    async def shutdown(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def do_request(
        self, url: str, method: str, request_data: RequestData | None = None, *_: object, **__: object
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Timeouts are those of this class: nobody here asks the library for others.

        Raises:
            TimedOut: it took too long.
            NetworkError: it failed otherwise. `never_left` tells of both whether it may have arrived.
        """
        files = request_data.multipart_data if request_data else {}
        body = aiohttp.FormData(request_data.json_parameters if request_data else {})
        for name, (file_name, content, media_type) in files.items():
            body.add_field(name, content, filename=file_name, content_type=media_type)
        most_s = CONNECT_S + (UPLOAD_S if files else SEND_S) + self._read_s
        timeout = aiohttp.ClientTimeout(total=most_s, connect=CONNECT_S, sock_read=self._read_s)
        headers = {"User-Agent": self.USER_AGENT}
        try:
            async with self._opened(url).request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
                tell(logging.DEBUG, "request", url=url, status=response.status)
                return response.status, content
        except TimeoutError as error:
            raise TimedOut(type(error).__name__) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NetworkError(f"{type(error).__name__}: {error}") from error

    def _opened(self, url: str) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=IDLE_S,
                ssl=httpx.create_ssl_context(),  # the certificates that everything else here trusts
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=_proxy_to(URL(url))
            )
        return self._session


def _proxy_to(url: URL) -> str | None:
    """As the environment says, asked once: aiohttp would look there, and at .netrc, for every request."""
    return None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
