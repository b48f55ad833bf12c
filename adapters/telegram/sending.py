"""Sends: paced, again where nothing can have arrived, and not again where that is unknown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from telegram import Bot, InlineKeyboardMarkup, Message, MessageEntity, ReplyParameters
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter, TelegramError

from adapters.telegram.http import never_left
from adapters.telegram.logs import tell
from adapters.telegram.pacing import Pace
from adapters.telegram.render import Piece
from adapters.telegram.updates import Chat

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0

T = TypeVar("T")


class UnsureError(Exception):
    """The connection failed after the request had gone out: it may have been carried out or not."""


class RefusedError(Exception):
    """Telegram will not do it, however often it is asked: the chat or the message is gone, or closed to the bot."""


class Sender:
    """Everything the bot sends goes through here.

    Args:
        bot: sends.
        pace: says when.
    """

    def __init__(self, bot: Bot, pace: Pace) -> None:
        self._bot = bot
        self.pace = pace
        self._moved: dict[int, int] = {}

    def _number(self, chat: Chat) -> int:
        """A group that became a supergroup has another number since."""
        return self._moved.get(chat.id, chat.id)

    async def text(
        self,
        chat: Chat,
        piece: Piece,
        *,
        keyboard: InlineKeyboardMarkup | None = None,
        answers: int = 0,
        repeatable: bool = False,
    ) -> int:
        """Send a message; returns its number. `answers` is the message it replies to.

        With `repeatable`, it is sent again until one has surely arrived.

        Raises:
            UnsureError: it may have arrived.
            RefusedError: it cannot be sent there.
        """

        async def send(entities: Sequence[MessageEntity], to: int) -> Message:
            return await self._bot.send_message(
                self._number(chat),
                piece.text,
                entities=entities or None,
                message_thread_id=chat.topic or None,
                reply_markup=keyboard,
                reply_parameters=ReplyParameters(to) if to else None,
            )

        # What it replies to may be gone, and an entity be nothing that Telegram takes: the words count.
        ways = [(piece.entities, answers), (piece.entities, 0), ((), 0)]
        tries = [lambda way=way: send(*way) for way in dict.fromkeys(ways)]
        return (await self._first_of(chat, tries, repeatable)).message_id

    async def edit(
        self, chat: Chat, message: int, piece: Piece, *, keyboard: InlineKeyboardMarkup | None = None
    ) -> bool:
        """Change a message; to do so twice changes nothing more, so it is done until it is sure.

        False: the message is gone, or can no longer be changed.
        """

        async def edit(entities: Sequence[MessageEntity]) -> None:
            try:
                await self._bot.edit_message_text(
                    piece.text, self._number(chat), message, entities=entities or None, reply_markup=keyboard
                )
            except BadRequest as error:
                if "not modified" not in str(error):  # it is as it should be already
                    raise

        tries = [lambda way=way: edit(way) for way in dict.fromkeys((piece.entities, ()))]
        try:
            await self._first_of(chat, tries, True)
        except RefusedError:
            return False
        return True

    async def passing_edit(self, chat: Chat, message: int, piece: Piece) -> None:
        """Show what has come so far, if there is room for it now; another comes soon."""
        if self.pace.ready(chat.id):
            await self.pace.turn(chat.id)
            await self._passing(
                chat,
                self._bot.edit_message_text(piece.text, self._number(chat), message, entities=piece.entities or None),
            )

    async def draft(self, chat: Chat, draft: int, piece: Piece) -> None:
        """Show what has come so far in a private chat, if there is room for it now."""
        if not self.pace.held(chat.id):
            await self._passing(
                chat,
                self._bot.send_message_draft(
                    chat.id,
                    draft,
                    piece.text,
                    message_thread_id=chat.topic or None,
                    entities=piece.entities or None,
                ),
            )

    async def action(self, chat: Chat, action: str) -> None:
        """Say in the chat's head that something is being done, for five seconds."""
        if not self.pace.held(chat.id):
            await self._passing(
                chat, self._bot.send_chat_action(self._number(chat), action, message_thread_id=chat.topic or None)
            )

    async def _passing(self, chat: Chat, request: Awaitable[object]) -> None:
        try:
            await request
        except RetryAfter as error:
            self.pace.hold(chat.id, seconds_of(error))
        except TelegramError as error:
            tell(logging.DEBUG, "left out", chat=chat.id, why=str(error))

    async def sticker(self, chat: Chat, data: bytes) -> None:
        """Raises UnsureError, RefusedError."""
        await self._first_of(
            chat, [lambda: self._bot.send_sticker(self._number(chat), data, message_thread_id=chat.topic or None)]
        )

    async def photo(self, chat: Chat, data: bytes) -> None:
        """Raises UnsureError, RefusedError."""
        await self._first_of(
            chat, [lambda: self._bot.send_photo(self._number(chat), data, message_thread_id=chat.topic or None)]
        )

    async def document(self, chat: Chat, name: str, data: bytes) -> None:
        """Raises UnsureError, RefusedError."""
        thread = chat.topic or None
        await self._first_of(
            chat, [lambda: self._bot.send_document(self._number(chat), data, filename=name, message_thread_id=thread)]
        )

    async def answer(self, callback: str, text: str = "", *, alert: bool = False) -> None:
        """Let a pressed button rest. Telegram takes that for some seconds only: it is tried once."""
        with suppress(TelegramError):
            await self._bot.answer_callback_query(callback, text or None, show_alert=alert or None)

    async def download(self, file_id: str) -> bytes:
        """The bytes of a file that someone sent. Raises RefusedError."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return bytes(await (await self._bot.get_file(file_id)).download_as_bytearray())
            except RetryAfter as error:
                await asyncio.sleep(seconds_of(error))
            except (BadRequest, Forbidden, InvalidToken) as error:
                raise RefusedError(str(error)) from None
            except TelegramError as error:  # to read again changes nothing
                tell(logging.WARNING, "not read yet", why=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _first_of(self, chat: Chat, tries: Sequence[Callable[[], Awaitable[T]]], repeatable: bool = False) -> T:
        """The first way that Telegram does not refuse as it is."""
        for number, way in enumerate(tries, 1):
            try:
                return await self._until_done(chat, way, repeatable)
            except BadRequest as error:
                if number == len(tries):
                    raise RefusedError(str(error)) from None
                tell(logging.WARNING, "refused as it was", chat=chat.id, why=str(error))
        raise AssertionError

    async def _until_done(self, chat: Chat, way: Callable[[], Awaitable[T]], repeatable: bool) -> T:
        pause = FIRST_PAUSE_S
        while True:
            await self.pace.turn(chat.id)
            try:
                return await way()
            except RetryAfter as error:  # it was not done
                tell(logging.WARNING, "asked for patience", chat=chat.id, seconds=seconds_of(error))
                self.pace.hold(chat.id, seconds_of(error))
            except ChatMigrated as error:
                self._moved[chat.id] = error.new_chat_id
            except BadRequest:
                raise
            except (Forbidden, InvalidToken) as error:
                raise RefusedError(str(error)) from None
            except TelegramError as error:
                if not (repeatable or never_left(error)):
                    raise UnsureError(str(error)) from None
                tell(logging.WARNING, "not sent yet", chat=chat.id, why=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)


def seconds_of(error: RetryAfter) -> float:
    """How long Telegram asks to wait."""
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
