"""Carries requests to the Bot API, by aiohttp: a hundred at once cost it a fifth of what they cost httpx."""

from __future__ import annotations

import logging
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData
from yarl import URL

from adapters.telegram.logs import tell
from chatbot.trace import hide

CONNECT_S = 10.0
"""To wait for a connection, from those kept or a new one."""

SEND_S, SLOWEST = 5.0, 20_000
"""To write a request, and bytes of its files a second. What is read may take as long as it goes on coming."""

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
        size = sum(len(content) for _, content, _ in files.values() if isinstance(content, bytes))
        most_s = CONNECT_S + SEND_S + size / SLOWEST + self._read_s if method == "POST" else None
        timeout = aiohttp.ClientTimeout(total=most_s, connect=CONNECT_S, sock_read=self._read_s)
        headers = {"User-Agent": self.USER_AGENT}
        body: aiohttp.FormData | bytes | None = None
        if request_data and files:
            body = aiohttp.FormData(request_data.json_parameters, quote_fields=False)
            for name, (file_name, content, media_type) in files.items():
                body.add_field(name, content, filename=file_name, content_type=media_type)
        elif request_data:  # aiohttp's own form is a third of what a request costs
            body = request_data.url_encoded_parameters().encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            async with self._opened(url).request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
                tell(logging.DEBUG, "request", url=url, status=response.status)
                return response.status, content
        except TimeoutError as error:
            raise TimedOut(type(error).__name__) from error
        except aiohttp.ClientHttpProxyError as error:  # its own words name the proxy, with whatever password
            raise NetworkError(f"the proxy says {error.status} {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NetworkError(f"{type(error).__name__}: {error}") from error

    def _opened(self, url: str) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=IDLE_S,
                ssl=httpx2.create_ssl_context(),  # the certificates with which models are fetched
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=_proxy_to(URL(url))
            )
        return self._session


def _proxy_to(url: URL) -> str | None:
    """As the environment says, asked once: aiohttp would look there, and at .netrc, for every request.

    Raises NetworkError where the bot cannot go through it.
    """
    found = getproxies()
    proxy = found.get(url.scheme) or found.get("all")
    if not proxy or proxy_bypass(url.host or ""):
        return None
    kind, _, rest = proxy.rpartition("://")
    if kind not in ("", "http", "https"):
        raise NetworkError(f"the environment names a {kind} proxy, and the bot goes through http ones only")
    way = URL(f"{kind or 'http'}://{rest}")
    for secret in {way.password, way.raw_password} - {None, ""}:
        hide(str(secret))
    return str(way)
