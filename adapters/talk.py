"""Turns what people say and press into calls of the chat service, and what comes of that into segments."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from adapters.base import Act, Ask, Cost, File, Incoming, Picture, Reply, Room, Told, command_of
from chatbot.chat import ChatService
from chatbot.errors import MessageError, UserError
from chatbot.events import (
    ConversationChanged,
    Event,
    Failed,
    FileReady,
    Finished,
    Notice,
    Progress,
    Started,
    TextDelta,
    Usage,
)
from storage.errors import NotFoundError, StorageError
from storage.feedback import Value
from storage.records import Message

NEW = "Your next message begins a new conversation."
SURE = {
    "conversation": "Delete this conversation with all that was said in it? This cannot be undone.",
    "everything": "Delete everything of yours, in all conversations? This cannot be undone.",
}


class Talk:
    """What all adapters share.

    Args:
        service: answers.
    """

    def __init__(self, service: ChatService) -> None:
        self.service = service
        self._chats = service.store.chats

    async def answer(self, incoming: Incoming, room: Room) -> Cost:
        """Answer what someone said, to the end. Raises StorageError where the database fails."""
        if begun := await self._message(incoming.reply):
            await room.deliver(await self._reply(begun.id))
            return Cost()
        command = command_of(incoming.text)
        if command is not None and command.destroys and not incoming.agreed:
            await room.deliver(Ask(SURE[command.destroys], f"/{command.name}"))
            return Cost()
        shown = await self._chats.conversation(incoming.chat)
        if command is not None and command.destroys == "everything":
            incoming = replace(incoming, owner=incoming.person)  # of a group's, what this person said
        return await self._hear(self._turn(incoming, shown), incoming, room, shown)

    async def press(self, act: Act, reply_id: str, incoming: Incoming, room: Room) -> Cost:
        """Do what a button under a reply says. Raises NotFoundError where that reply is gone."""
        service = self.service
        reply = await service.conversations.message(reply_id, person=incoming.person)
        here = reply.conversation_id
        if begun := await self._message(incoming.reply):
            await room.deliver(await self._reply(begun.id))
            return Cost()
        if (await service.conversations.get(here)).person_id != incoming.owner:
            raise NotFoundError(f"There is no reply '{reply_id}' here.")
        if act in ("retry", "redraw"):
            shown = await self._chats.conversation(incoming.chat)
            return await self._hear(service.regenerate(here, reply_id), incoming, room, shown)
        if act in ("good", "bad"):
            value: Value = 1 if act == "good" else -1
            kept: Value = 0 if reply.rating == value else value
            await service.rate(reply_id, kept, person=incoming.person)
            await room.deliver(Told("Noted, thank you." if kept else "Taken back."))
            return Cost()
        if act != "show":
            ids = await service.conversations.siblings(reply_id)
            step = 1 if act == "next" else -1
            reply_id = ids[(ids.index(reply_id) + step) % len(ids)]
            await service.switch(here, reply_id)
        await room.deliver(await self._reply(reply_id))
        return Cost()

    async def stop(self, chat: str) -> bool:
        """Stop the reply that is coming in a chat; False where none is, in this process."""
        shown = await self._chats.conversation(chat)
        return shown is not None and await self.service.stop(shown)

    async def _turn(self, incoming: Incoming, shown: str | None) -> AsyncGenerator[Event, None]:
        service = self.service
        text = incoming.text
        for file in incoming.files:
            text = f"{text}\n\n{file.name}:\n```\n{file.data.decode('utf-8', 'replace')}\n```".strip()
        events = service.send(shown, text, person=incoming.owner, message_id=incoming.message_id)
        if incoming.again and (said := await self._message(incoming.message_id)) is not None:
            events = self._once_more(said, incoming.stopped)
        elif incoming.edits and (edited := await self._message(incoming.edits)) is not None:
            if await self._is_said(edited, text):
                return
            events = service.edit(edited.conversation_id, edited.id, text, new_id=incoming.message_id)
        async with aclosing(events) as stream:
            async for event in stream:
                yield event

    async def _message(self, message_id: str) -> Message | None:
        try:
            return await self.service.conversations.message(message_id) if message_id else None
        except NotFoundError:
            return None

    async def _is_said(self, edited: Message, text: str) -> bool:
        """Whether the newest version of a message has that text: platforms tell of other changes as edits too."""
        newest = (await self.service.conversations.siblings(edited.id))[-1]
        return (await self.service.conversations.message(newest)).text == text

    async def _once_more(self, said: Message, stopped: bool) -> AsyncGenerator[Event, None]:
        """The reply to a message that a process which has died took: as it is, gone on with, or another."""
        service = self.service
        here = said.conversation_id
        await service.conversations.mark_interrupted()
        leaf = await service.switch(here, said.id)
        reply = await service.conversations.message(leaf)
        answered = reply.parent_id == said.id
        if answered and (reply.status == "complete" or (stopped and reply.text)):
            yield Started(here, said.id, reply.id)
            yield Finished(reply.id, reply.text, "stop", reply.model or "")
            return
        events = service.regenerate(here, said.id)
        if answered and reply.status in ("interrupted", "stopped") and reply.text:
            events = service.resume(here, reply.id)
        async with aclosing(events) as stream:
            async for event in stream:
                yield event

    async def _hear(
        self, turn: AsyncGenerator[Event, None], incoming: Incoming, room: Room, shown: str | None
    ) -> Cost:
        cost = Cost()
        text, delivered = "", False
        changed: str | None = ""
        try:
            async with aclosing(turn) as events:
                async for event in events:
                    if isinstance(event, Started):
                        await self._begun(event, incoming, shown)
                        cost.replies += 1
                    elif isinstance(event, TextDelta):
                        text += event.text
                        room.show(text)
                    elif isinstance(event, Progress):
                        room.busy(event.text)
                    elif isinstance(event, Usage):
                        cost.tokens += event.completion_tokens
                    elif isinstance(event, ConversationChanged):
                        changed = event.conversation
                        await self._chats.show(incoming.chat, changed)
                    elif isinstance(event, Finished):
                        reply = await self._reply(event.reply)
                        cost.pictures += len(reply.pictures)
                        await room.deliver(reply)
                    elif isinstance(event, Notice | FileReady | Failed):
                        await room.deliver(_segment(event))
                        delivered = True
        except (UserError, StorageError) as error:
            if not isinstance(error, UserError | NotFoundError):
                raise
            await room.deliver(Told(str(error), error=True))
            return cost
        if changed != "" and not delivered:
            await room.deliver(await self._changed_to(changed))
        return cost

    async def _begun(self, started: Started, incoming: Incoming, shown: str | None) -> None:
        if shown != started.conversation:
            await self._chats.show(incoming.chat, started.conversation)
        if incoming.person != incoming.owner:
            await self.service.store.chats.said_by(started.message, incoming.person)
        if incoming.files and not await self.service.store.attachments.of_messages([started.message]):
            for file in incoming.files:
                await self.service.store.attachments.add(started.message, file.name, file.media_type, file.data)

    async def _reply(self, reply_id: str) -> Reply:
        message = await self.service.conversations.message(reply_id)
        return Reply(message.id, message.text, message.position, message.siblings, await self._pictures(message))

    async def _pictures(self, message: Message) -> tuple[Picture, ...]:
        if not message.attached:
            return ()
        files = self.service.store.attachments
        found = await files.of_messages([message.id])
        return tuple(
            Picture(files.path(file.id), str(file.details.get("prompt", "")))
            for file in found
            if file.media_type == "image/png"
        )

    async def _changed_to(self, conversation: str | None) -> Told | Reply:
        """What a command without words of its own has led to."""
        if conversation is None:
            return Told(NEW)
        try:
            return await self._reply(await self.service.last_reply(conversation))
        except MessageError:
            title = (await self.service.conversations.get(conversation)).title
            return Told(f"Here: {title}" if title else NEW)


def _segment(event: Notice | FileReady | Failed) -> Told | File:
    if isinstance(event, FileReady):
        return File(event.name, event.text)
    return Told(event.text, error=isinstance(event, Failed))
