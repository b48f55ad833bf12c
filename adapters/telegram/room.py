"""Shows one answer in a Telegram chat: that it is being worked on, what has come, and then all of it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from telegram import InlineKeyboardMarkup
from telegram.constants import ChatAction

from adapters.base import Ask, File, Picture, Reply, Segment, Told
from adapters.telegram import buttons, render
from adapters.telegram.logs import tell
from adapters.telegram.render import Piece
from adapters.telegram.sending import RefusedError, Sender, UnsureError
from adapters.telegram.updates import Update
from adapters.texts import in_language
from storage.inbox import Entry, Inbox

DRAFT_EVERY_S = 0.8
EDIT_EVERY_S = 3.0
KEEP_DRAFT_S = 20.0
"""A draft is gone after thirty seconds: where no more comes, it is shown again before."""

PATIENCE_S = 1.5
"""How long the whole waits for a draft that is on its way; one that comes later stays for half a minute."""

ACTION_AFTER_S = 0.5
"""What is answered sooner needs nobody told that it is being worked on."""

ACTION_EVERY_S = 4.5
MORE = " …"
"""Ends what is not all yet."""

UNSURE = "My answer may not have reached you: the connection failed half way."
INTERNAL = "Something went wrong here, and it has been noted. Please try again."
_INSIDE = re.compile(r"\bUnexpected \w+;|://|(?:^|[\s('\"“])(?:~|[A-Za-z]:\\|/[\w.-]+/)|\bdatabase\b", re.IGNORECASE)


class TakenOverError(Exception):
    """Another process held this one for dead, and answers."""


class TelegramRoom:
    """A `Room`, to be closed at the end.

    Args:
        sender: sends.
        inbox: is told how far the answer is.
        entry: what is answered, and how far a process that has died was with it.
        update: the same, read.
    """

    def __init__(self, sender: Sender, inbox: Inbox, entry: Entry, update: Update) -> None:
        self._sender = sender
        self._inbox = inbox
        self._entry = entry
        self._update = update
        self._chat = update.chat
        self._language = update.language
        self._out = 0  # messages of the answer, those that a process before has sent among them
        self._shown: int | None = entry.shown_id
        self._text = ""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._streaming: asyncio.Task[None] | None = None
        self._action = ChatAction.TYPING
        self._acts_otherwise = asyncio.Event()
        self._acting = asyncio.create_task(self._act())
        self._unsure = ""
        self._callback = ""

    async def close(self) -> None:
        """End what still goes on."""
        self._acting.cancel()
        if self._streaming is not None:
            self._streaming.cancel()
            await asyncio.gather(self._streaming, return_exceptions=True)

    def replace(self, message: int) -> None:
        """Let a message of the bot become the first of the answer."""
        if self._shown is None:
            self._shown = message

    def tell_in_passing(self, callback: str) -> None:
        """Let what is told appear for a moment, where a button was pressed."""
        self._callback = callback

    # What Room asks for

    def busy(self, what: str) -> None:
        if what.startswith("Drawing"):
            self._act_as(ChatAction.UPLOAD_PHOTO)

    def show(self, text: str) -> None:
        self._text = text
        self._changed.set()
        if self._streaming is None:
            self._ended.clear()
            self._streaming = asyncio.create_task(self._stream())

    async def deliver(self, segment: Segment) -> None:
        await self._end_streaming()
        if isinstance(segment, Reply):
            await self._deliver_reply(segment)
        elif isinstance(segment, Ask):
            keyboard = buttons.sure(segment.command, self._language)
            await self._words([Piece(self._translated(segment.text))], keyboard)
        elif isinstance(segment, File):
            self._act_as(ChatAction.UPLOAD_DOCUMENT)
            await self._out_once(partial(self._sender.document, self._chat, segment.name, segment.text.encode()))
        elif self._callback:
            await self._sender.answer(self._callback, self._told(segment))
        else:
            await self._words(render.plain(self._told(segment)), None)
        self._acting.cancel()
        if self._unsure:
            await self._say_unsure()

    # How

    async def _deliver_reply(self, reply: Reply) -> None:
        if reply.pictures:
            self._shown = None  # they come first
        self._entry.reply_id = reply.id  # kept along with what is out of it
        for picture in reply.pictures:
            self._act_as(ChatAction.UPLOAD_PHOTO)
            await self._out_once(partial(self._picture, picture))
        await self._words(render.pieces(reply.text), buttons.under(reply, self._language))

    async def _picture(self, picture: Picture) -> None:
        if await asyncio.to_thread(render.is_transparent, picture.path):
            await self._sender.sticker(self._chat, await asyncio.to_thread(render.sticker, picture.path))
        else:
            await self._sender.photo(self._chat, await asyncio.to_thread(picture.path.read_bytes))

    async def _words(self, pieces: list[Piece], keyboard: InlineKeyboardMarkup | None) -> None:
        """Send pieces one after the other, buttons under the last; what shows the answer so far becomes the first."""
        for number, piece in enumerate(pieces, 1):
            last = keyboard if number == len(pieces) else None
            await self._out_once(partial(self._say, piece, last, number == 1))

    async def _say(self, piece: Piece, keyboard: InlineKeyboardMarkup | None, first: bool) -> None:
        shown, self._shown = self._shown, None
        if shown is not None and await self._sender.edit(self._chat, shown, piece, keyboard=keyboard):
            return
        answers = 0 if self._chat.private or not first else self._update.message
        await self._sender.text(self._chat, piece, keyboard=keyboard, answers=answers)

    async def _out_once(self, send: Callable[[], Awaitable[object]]) -> None:
        """Send one message of the answer, if it is not out yet, and keep how far that is."""
        self._out += 1
        if self._out <= self._entry.parts:
            return
        # From here until it is noted, a kill leaves it open whether this one is out: then it comes once more.
        so_far = {"state": "sending", "parts": self._out - 1, "reply_id": self._entry.reply_id}
        if not await self._inbox.note(self._entry.seq, **so_far):
            raise TakenOverError
        try:
            await send()
        except UnsureError as error:
            tell(logging.WARNING, "an answer may have arrived or not", update=self._entry.update_id, why=str(error))
            self._unsure = self._entry.reply_id or "?"
        except RefusedError as error:
            tell(logging.WARNING, "an answer was refused", update=self._entry.update_id, why=str(error))
        self._entry.parts = self._out  # it is out, for this process too, if it has to try the rest again

    async def _say_unsure(self) -> None:
        """Not sent again, since it may be there; the person sees whether it is."""
        reply, self._unsure = self._unsure, ""
        keyboard = buttons.show_again(reply, self._language) if reply != "?" else None
        try:
            await self._sender.text(self._chat, Piece(self._translated(UNSURE)), keyboard=keyboard, repeatable=True)
        except RefusedError as error:
            tell(logging.WARNING, "an answer was refused", update=self._entry.update_id, why=str(error))

    def _told(self, told: Told) -> str:
        text = told.text
        if told.error and _INSIDE.search(text):
            tell(logging.ERROR, "an answer failed", update=self._entry.update_id, why=text)
            text = INTERNAL
        return re.sub(r"(?m)^(/\S.*?) {2,}", r"\1 — ", self._translated(text))

    def _translated(self, text: str) -> str:
        return in_language(self._language, text)

    def _act_as(self, action: ChatAction) -> None:
        if action != self._action:
            self._action = action
            self._acts_otherwise.set()

    async def _act(self) -> None:
        wait = ACTION_AFTER_S
        while True:
            await _within(self._acts_otherwise.wait(), wait)
            self._acts_otherwise.clear()
            await self._sender.action(self._chat, self._action)
            wait = ACTION_EVERY_S

    async def _stream(self) -> None:
        every = DRAFT_EVERY_S if self._chat.private else EDIT_EVERY_S
        while not self._ended.is_set():
            changed = await _within(self._changed.wait(), KEEP_DRAFT_S)
            if self._ended.is_set() or not (changed or self._chat.private):
                continue
            self._changed.clear()
            *_, piece = render.pieces(self._text, render.LIMIT - len(MORE))
            if not await self._pass(Piece(piece.text + MORE, piece.entities)):
                return
            await _within(self._ended.wait(), every)

    async def _pass(self, piece: Piece) -> bool:
        """Show what has come; False where no more is to be shown before all of it."""
        if self._chat.private:
            await self._sender.draft(self._chat, self._entry.update_id % (2**31 - 1) + 1, piece)
        elif self._shown is not None:
            await self._sender.passing_edit(self._chat, self._shown, piece)
        elif not self._entry.parts and self._sender.pace.ready(self._chat.id):
            try:
                self._shown = await self._sender.text(self._chat, piece, answers=self._update.message)
            except (UnsureError, RefusedError) as error:  # it may stand there: another would be one too many
                tell(logging.DEBUG, "left out", chat=self._chat.id, why=str(error))
                return False
            self._entry.shown_id = self._shown
            await self._inbox.note(self._entry.seq, shown_id=self._shown)
        return True

    async def _end_streaming(self) -> None:
        """Nothing more of it is shown. What is on its way is waited for: it must not come after the whole, and
        the number of the message that it makes is needed."""
        task = self._streaming
        if task is None:
            return
        self._ended.set()
        self._changed.set()
        await asyncio.wait([task], timeout=PATIENCE_S if self._chat.private else None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._streaming = None


async def _within(waiting: Coroutine[object, object, object], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return False
    return True
