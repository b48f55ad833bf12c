"""The bot: what comes is stored, answered chat by chat, and done when the answer is out."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from telegram import Bot, BotCommand, BotCommandScopeChat, User
from telegram.error import BadRequest, Forbidden, InvalidToken, TelegramError

from adapters.base import Cost, is_urgent
from adapters.talk import Talk
from adapters.telegram.access import Doorkeeper
from adapters.telegram.admin import ADMIN_COMMANDS, Office
from adapters.telegram.answering import Answering
from adapters.telegram.http import AiohttpRequest
from adapters.telegram.lanes import Lanes
from adapters.telegram.logs import start_log, tell
from adapters.telegram.pacing import Pace
from adapters.telegram.polling import FIRST_PAUSE_S, LONGEST_PAUSE_S, REFUSED, Poller
from adapters.telegram.room import TakenOverError
from adapters.telegram.sending import Sender
from adapters.telegram.updates import Update, read
from adapters.texts import in_language, languages
from chatbot.chat import ChatService
from chatbot.commands import COMMANDS
from chatbot.errors import UserError
from chatbot.retrain.background import Background
from chatbot.session import open_service
from chatbot.settings import Settings
from chatbot.trace import hide, keep_trace
from storage.errors import StorageError
from storage.inbox import Arrival, Entry, Inbox

os.environ.setdefault("PTB_TIMEDELTA", "true")  # or the library warns of every wait that Telegram asks for

GRACE_S = 10.0
"""How long replies may go on when the bot is told to end."""

LOOK_EVERY_S = 1.0
BEAT_EVERY_S = 4.0
TIMEOUT_S = 10.0
CONNECTIONS = 256
TELEGRAM = "https://api.telegram.org"
KNOWN = frozenset((*COMMANDS, *ADMIN_COMMANDS))

_TOKEN = re.compile(r"(\d{1,20}):[\w-]{10,}")


async def run_bot(settings: Settings, log_level: str) -> None:
    """Run until it is cancelled. Raises UserError where the settings do not do, or Telegram refuses the token."""
    token = settings.telegram_token.get_secret_value().strip()
    for secret in {token, quote(token), token.partition(":")[2]} - {""}:
        hide(secret)
    if _TOKEN.fullmatch(token) is None:
        raise UserError(
            "The bot needs its token, as BotFather gives it (numbers, a colon, letters); set CHATBOT_TELEGRAM_TOKEN, "
            "or telegram_token in the TOML file."
        )
    if not (settings.telegram_allow or settings.telegram_admins):
        raise UserError(
            "Nobody may talk to the bot yet; set CHATBOT_TELEGRAM_ALLOW to the ids of who may, or to * for everyone."
        )
    server = _server(settings.telegram_api_url)
    start_log(log_level)
    async with open_service(settings) as service:
        await TelegramBot(service, settings, token, server).run()


def _server(url: str) -> str:
    """Where the Bot API is. Raises UserError."""
    if not url:
        return TELEGRAM
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.path.strip("/") or parts.query:
        raise UserError("CHATBOT_TELEGRAM_API_URL is a scheme, a host and a port, such as http://localhost:8081.")
    return url.rstrip("/")


class TelegramBot:
    """Hears one account on Telegram.

    Args:
        service: answers.
        settings: who may, and how much.
        token: of the account.
        server: where the Bot API is.
    """

    def __init__(self, service: ChatService, settings: Settings, token: str, server: str) -> None:
        self._service = service
        self._settings = settings
        database = service.store.database
        self._id = int(token.partition(":")[0])
        self._name = ""
        self._request = AiohttpRequest(CONNECTIONS, TIMEOUT_S)
        self._bot = Bot(
            token, f"{server}/bot", f"{server}/file/bot", request=self._request, get_updates_request=self._request
        )
        self._inbox = Inbox(database, f"telegram:{self._id}", settings.telegram_pending)
        self._poller = Poller(self._bot, self._keep)
        door = Doorkeeper(database, settings, token)
        retraining = Background(settings.home)
        office = Office(door, service.store, self._inbox, retraining, self._id, lambda: self._poller.answered)
        sender = Sender(self._bot, Pace())
        self._answering = Answering(Talk(service), sender, self._inbox, door, office, self._id)
        self._lanes = Lanes(self._work, self._inbox.emptied)
        self._fresh: dict[int, Update] = {}
        """What this process has read and stored itself, by the number of its entry, until that is worked on."""

    async def run(self) -> None:
        """Run until cancelled; then replies may end. Raises UserError where Telegram refuses the token."""
        tasks: list[asyncio.Task[None]] = []
        try:
            me = await self._meet()
            self._name = self._answering.name = me.username or ""
            gc.freeze()  # to look for garbage among all that is loaded would hold up everyone for a tenth of a second
            tell(logging.INFO, "started", bot=self._id, name=self._name)
            tasks = [
                asyncio.create_task(part())
                for part in (self._poller.run, self._look_after, self._tell_news, self._introduce)
            ]
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not await self._lanes.drain(GRACE_S):
                tell(logging.WARNING, "ended in the middle of answers", left=self._lanes.count)
            await self._request.shutdown()
            tell(logging.INFO, "ended", bot=self._id)

    async def _meet(self) -> User:
        """Who we are; Telegram may be down for as long as it likes."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await self._bot.get_me()
            except InvalidToken:
                raise UserError(REFUSED) from None
            except TelegramError as error:
                tell(logging.WARNING, "Telegram cannot be reached yet", why=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _introduce(self) -> None:
        """Tell Telegram the commands, in every language; admins see theirs too."""
        for language in ("", *languages()):
            everyone = [(command.name, command.help) for command in COMMANDS.values()]
            admins = [(name, command.help) for name, command in ADMIN_COMMANDS.items()]
            await self._set_commands(everyone, language, None)
            for admin in self._settings.telegram_admins:
                await self._set_commands([*everyone, *admins], language, admin)

    async def _set_commands(self, commands: list[tuple[str, str]], language: str, admin: str | None) -> None:
        shown = [BotCommand(name, in_language(language, help)[:256]) for name, help in commands]
        scope = None if admin is None else BotCommandScopeChat(int(admin) if admin.isdecimal() else admin)
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._bot.set_my_commands(shown, scope=scope, language_code=language or None)
                return
            except (BadRequest, Forbidden, InvalidToken) as error:  # an admin who never spoke with the bot
                tell(logging.INFO, "commands not set", why=str(error))
                return
            except TelegramError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _keep(self, raws: Sequence[Any]) -> None:
        """Store what is to be answered; when this returns, the updates may be confirmed."""
        arrivals, updates = [], {}
        for raw in raws:
            try:
                if (update := self._read(raw)) is not None and self._concerns_us(update):
                    arrivals.append(_arrival(update, raw))
                    updates[update.id] = update
            except Exception as error:  # one that cannot be read must not keep the others from being read
                tell(logging.ERROR, "an update cannot be read", why=keep_trace(error))
        entries = await self._inbox.store(arrivals)
        self._fresh |= {entry.seq: updates[entry.update_id] for entry in entries}
        self._lanes.add(entries)

    def _read(self, raw: Any) -> Update | None:
        return read(raw, self._id, self._name, KNOWN)

    def _concerns_us(self, update: Update) -> bool:
        return update.asked or self._settings.telegram_groups == "all"

    async def _look_after(self) -> None:
        """Take what others have left or stored for us, and show that we live."""
        beaten = 0.0
        while True:
            try:
                entries, stopped = await self._inbox.look()
                for entry in entries:
                    if entry.attempts:
                        tell(logging.INFO, "taken over", update=entry.update_id, state=entry.state)
                self._lanes.add(entries)
                for lane in stopped:
                    await self._answering.stop(lane)
                if self._lanes.count and time.monotonic() - beaten > BEAT_EVERY_S:
                    await self._inbox.beat()
                    beaten = time.monotonic()
            except StorageError as error:
                tell(logging.ERROR, "the database failed", why=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _tell_news(self) -> None:
        """Tell admins what has ended that they asked for."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._answering.tell_news()
            except Exception as error:  # it is told a little later
                tell(logging.ERROR, "news cannot be told", why=keep_trace(error))

    async def _work(self, entry: Entry) -> None:
        """Answer an entry, until that is done."""
        began, pause = time.monotonic(), FIRST_PAUSE_S
        update = self._fresh.pop(entry.seq, None)
        answered = counted = False
        cost = Cost()
        while True:
            try:
                update = update or self._read(json.loads(entry.payload))
                if update is not None and not answered:
                    cost = await self._answering.answer(entry, update)
                    answered = True  # whatever fails from here on, it is not answered again
                if update is not None and not counted:
                    await self._answering.count(update, cost)
                    counted = True
                await self._inbox.done(entry.seq)
                tell(logging.INFO, "done", update=entry.update_id, seconds=round(time.monotonic() - began, 3))
                return
            except TakenOverError:
                tell(logging.WARNING, "another process answers", update=entry.update_id)
                return
            except StorageError as error:
                tell(logging.ERROR, "the database failed", update=entry.update_id, why=str(error))
                entry.attempts += 1
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except Exception as error:
                tell(logging.ERROR, "an answer failed", update=entry.update_id, why=keep_trace(error))
                if update is not None and not answered:
                    await self._answering.apologise(update)
                entry.payload, update = "null", None


def _arrival(update: Update, raw: Any) -> Arrival:
    rates = update.act == "pressed" and update.text.startswith(("good:", "bad:"))
    return Arrival(update.id, update.chat.lane, str(update.sender), json.dumps(raw), is_urgent(update.text) or rates)
