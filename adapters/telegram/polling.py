"""Asks for updates. What comes is stored first; only then does asking again confirm it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from telegram import Bot
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError

from adapters.telegram.http import AiohttpRequest
from adapters.telegram.logs import tell
from adapters.telegram.sending import seconds_of
from adapters.telegram.updates import WANTED
from chatbot.errors import UserError
from storage.errors import StorageError

HELD_S = 25
"""How long a server with nothing to tell keeps us waiting."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 4.0
REFUSED = "Telegram refuses the token; take the one that BotFather shows, in CHATBOT_TELEGRAM_TOKEN or the TOML file."


class Poller:
    """The loop that asks.

    Args:
        bot: whose updates.
        store: keeps some updates; what it raises leaves them unconfirmed.
    """

    def __init__(self, bot: Bot, store: Callable[[Sequence[Any]], Awaitable[None]]) -> None:
        self._bot = bot
        self._store = store
        # One of its own: what is sent never waits for it. As it came, since an update that the library
        # cannot read would keep all that came with it from being read.
        self._request = AiohttpRequest(1, HELD_S + 10)
        self.answered = 0.0
        """When Telegram last answered, in seconds of `time.monotonic`."""

    async def run(self) -> None:
        """Ask for ever. Raises UserError where Telegram refuses the token."""
        offset, pause = 0, FIRST_PAUSE_S
        try:
            while True:
                try:
                    updates = await self._ask(offset)
                    self.answered = time.monotonic()
                    if updates:
                        await self._store(updates)
                        offset = max(map(_number, updates)) + 1
                        if not offset:  # nothing by which they could be confirmed: they would come again at once
                            await asyncio.sleep(FIRST_PAUSE_S)
                    pause = FIRST_PAUSE_S
                    continue
                except InvalidToken:
                    raise UserError(REFUSED) from None
                except RetryAfter as error:
                    wait = seconds_of(error)
                except (TelegramError, StorageError) as error:
                    what = "another asks for the same updates" if isinstance(error, Conflict) else "asking failed"
                    tell(logging.WARNING, what, why=str(error))
                    wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)
                await asyncio.sleep(wait)
        finally:
            await self._request.shutdown()

    async def _ask(self, offset: int) -> list[Any]:
        asked = {"offset": offset, "timeout": HELD_S, "allowed_updates": json.dumps(WANTED)}
        url = f"{self._bot.base_url}/getUpdates?{urlencode(asked)}"
        found = await self._request.post(url)
        return found if isinstance(found, list) else []


def _number(raw: Any) -> int:
    number = raw.get("update_id") if isinstance(raw, dict) else None
    return number if type(number) is int else -1
