"""Answers one update: asks whether it may be, finds out what it is, and lets the talk go on in a room."""

from __future__ import annotations

import logging
from contextlib import suppress

from adapters.base import Cost, Incoming, TextFile, Told, command_of
from adapters.talk import Talk
from adapters.telegram import buttons
from adapters.telegram.access import PLATFORM, Doorkeeper
from adapters.telegram.admin import Office
from adapters.telegram.logs import tell
from adapters.telegram.render import Piece
from adapters.telegram.room import INTERNAL, TelegramRoom
from adapters.telegram.sending import RefusedError, Sender, UnsureError
from adapters.telegram.updates import Chat, Document, Update, message_id_of
from adapters.texts import in_language
from storage.errors import NotFoundError
from storage.inbox import ASIDE, Entry, Inbox
from storage.people import Person

MOST_BYTES = 256 * 1024
"""Of a text file: far more than a model reads."""

FULL = "Your messages before this one are still waiting to be answered, and no more can wait; send it again later."
UNREADABLE = "I can read text and text files only."
TOO_LARGE = "The file is too large to be read; 256 KB is the most."
GONE = "That reply is gone."
UNKNOWN_MODEL = "That model is not known here; whoever runs the bot can fetch it."


class Answering:
    """Answers entries of the inbox.

    Args:
        talk: what all adapters share.
        sender: sends.
        inbox: is told how far answers are.
        door: knows who may.
        office: answers admins.
        bot: number of the bot's account.
    """

    def __init__(self, talk: Talk, sender: Sender, inbox: Inbox, door: Doorkeeper, office: Office, bot: int) -> None:
        self._talk = talk
        self._sender = sender
        self._inbox = inbox
        self._door = door
        self._office = office
        self._bot = bot
        self.name = ""
        """What the bot is called on Telegram."""

    async def answer(self, entry: Entry, update: Update) -> Cost:
        """Answer an update, to the end; returns what that took, for `count`.

        Raises:
            StorageError: the database failed.
            TakenOverError: another process answers.
        """
        refused = await self._door.refusal(update)
        if refused is not None:
            await self._turn_away(update, refused)
            return Cost()
        if entry.state == "sending":
            tell(logging.WARNING, "an answer may come twice: a process died between sending and noting it",
                 update=entry.update_id)  # fmt: skip
        room = TelegramRoom(self._sender, self._inbox, entry, update)
        try:
            if entry.turned_away:
                await room.deliver(Told(FULL))
            elif update.act == "moved":
                await self._move(update)
            elif update.act == "pressed":
                return await self._press(entry, update, room)
            else:
                return await self._say(entry, update, room)
            return Cost()
        finally:
            await room.close()

    async def count(self, update: Update, cost: Cost) -> None:
        """Keep what an answer took. Raises StorageError."""
        await self._door.count(update, cost)

    async def stop(self, lane: str) -> bool:
        """Stop the reply that is coming in a lane."""
        return await self._talk.stop(self._chat_in(lane))

    async def apologise(self, update: Update) -> None:
        """Say that something went wrong, and nothing of what."""
        with suppress(RefusedError, UnsureError):
            await self._sender.text(update.chat, Piece(in_language(update.language, INTERNAL)))

    async def tell_news(self) -> None:
        """Tell the admin who asked for it that a retraining has ended, once it surely arrives."""
        retraining = self._office.retraining
        if (news := retraining.news()) is None:
            return
        (bot, chat), text = news[0].split(":"), news[1]
        with retraining.alone("tell.lock") as alone:
            if alone and int(bot) == self._bot:
                with suppress(RefusedError):  # the admin has left: there is nobody to tell
                    await self._sender.text(Chat(int(chat), private=int(chat) > 0), Piece(text), repeatable=True)
                retraining.told()

    async def _say(self, entry: Entry, update: Update, room: TelegramRoom) -> Cost:
        if update.act == "unreadable":
            await room.deliver(Told(UNREADABLE))
            return Cost()
        if self._door.is_admin(update.sender):
            told = await self._office.answer(update.text, update.chat.id)
            if told is not None:
                await room.deliver(Told(told))
                return Cost()
        command = command_of(update.text)
        if command is not None and command.name == "stop":
            lane = update.chat.lane
            stopped = await self._inbox.stop(lane)
            await room.deliver(Told("Stopped." if await self.stop(lane) or stopped else "No reply is coming."))
            return Cost()
        if command is not None and command.name == "model" and not await self._may_choose(update):
            await room.deliver(Told(UNKNOWN_MODEL))
            return Cost()
        files: tuple[TextFile, ...] = ()
        if update.document is not None:
            file = await self._read(update.document)
            if isinstance(file, str):
                await room.deliver(Told(file))
                return Cost()
            files = (file,)
        numbers = (update.message, update.id) if update.act == "edited" else (update.message,)
        incoming = await self._incoming(
            entry,
            update,
            text=update.text,
            message_id=message_id_of(self._bot, update.chat.id, *numbers),
            edits=message_id_of(self._bot, update.chat.id, update.message) if update.act == "edited" else "",
            files=files,
        )
        return await self._talk.answer(incoming, room)

    async def _press(self, entry: Entry, update: Update, room: TelegramRoom) -> Cost:
        pressed = buttons.pressed(update.text)
        if pressed is None:
            await self._sender.answer(update.callback)
            text = buttons.agreed(update.text)
            command = command_of(text)
            if command is not None and command.destroys:  # a client may send back what no button said
                room.replace(update.message)
                await self._talk.answer(await self._incoming(entry, update, text=text, agreed=True), room)
            return Cost()
        act, reply_id = pressed
        if act in ("good", "bad"):
            room.tell_in_passing(update.callback)
        else:
            await self._sender.answer(update.callback)
        if act in ("previous", "next"):
            room.replace(update.message)
        try:
            return await self._talk.press(act, reply_id, await self._incoming(entry, update), room)
        except NotFoundError:
            room.tell_in_passing(update.callback)
            await room.deliver(Told(GONE))
            return Cost()

    async def _incoming(self, entry: Entry, update: Update, **said: object) -> Incoming:
        person = await self._person(str(update.sender), update.name)
        owner = person if update.chat.private else await self._person(str(update.chat.id))
        return Incoming(
            chat=self._chat_in(update.chat.lane),
            person=person.id,
            owner=owner.id,
            again=entry.attempts > 0,
            reply=entry.reply_id or "",
            stopped=entry.stopped,
            **{"text": "", **said},  # type: ignore[arg-type]  # its fields, by name
        )

    async def _person(self, number: str, name: str = "") -> Person:
        people = self._talk.service.store.people
        with suppress(NotFoundError):
            known = await people.find(PLATFORM, number)
            if known.name == name or not name:
                return known
        return await people.get_or_add(PLATFORM, number, name)

    async def _read(self, document: Document) -> TextFile | str:
        """A text file that came along, or why it is none."""
        if document.size > MOST_BYTES:
            return TOO_LARGE
        try:
            data = await self._sender.download(document.file_id)
        except RefusedError:
            return UNREADABLE
        if len(data) > MOST_BYTES:
            return TOO_LARGE
        try:
            readable = "\0" not in data.decode("utf-8-sig")
        except UnicodeDecodeError:
            readable = False
        return TextFile(document.name, document.media_type or "text/plain", data) if readable else UNREADABLE

    async def _may_choose(self, update: Update) -> bool:
        """Whether someone may let the model of a command answer: what would be fetched, or read from any place on
        this machine, is for admins."""
        wanted = " ".join(update.text.split()[1:])
        if wanted in ("", "default") or self._door.is_admin(update.sender):
            return True
        listed = await self._talk.service.store.registry.list("gpt")
        return any(wanted in (one.version.name, one.version.ref) for one in listed)

    async def _move(self, update: Update) -> None:
        """A group became a supergroup, with another number: its conversation goes along."""
        chats = self._talk.service.store.chats
        shown = await chats.conversation(self._chat_in(update.chat.lane))
        await chats.show(self._chat_in(Chat(int(update.text), False).lane), shown)

    async def _turn_away(self, update: Update, why: str) -> None:
        """Say so to whoever asked, in a group to nobody else."""
        told = in_language(update.language, why)
        if update.act == "pressed":
            await self._sender.answer(update.callback, told, alert=True)
        elif update.chat.private:
            with suppress(RefusedError, UnsureError):
                await self._sender.text(update.chat, Piece(told))

    def _chat_in(self, lane: str) -> str:
        return f"{PLATFORM}:{self._bot}:{lane.removesuffix(ASIDE)}"
