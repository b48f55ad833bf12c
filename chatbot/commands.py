"""The one registry of commands: slash commands, palette entries, bot commands and help all read it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chatbot.errors import MessageError
from chatbot.events import ConversationChanged, Event, Failed, FileReady, Notice

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from storage.feedback import Value


@dataclass(frozen=True, slots=True)
class Call:
    """A command as someone gave it: in which conversation (None: a new one), with what behind it, and who; a message
    that it says has `message_id`, where that is not empty."""

    service: ChatService
    conversation: str | None
    argument: str
    person: str
    message_id: str = ""

    @property
    def here(self) -> str:
        """The conversation. Raises MessageError where it has not begun."""
        if self.conversation is None:
            raise MessageError("There is nothing here yet: the conversation is empty.")
        return self.conversation


Run = Callable[[Call], AsyncGenerator[Event, None]]
Destroys = Literal["", "conversation", "everything"]


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` names what may follow the command, or is empty. A front end asks before it runs one that
    `destroys` the conversation, or everything that is the person's."""

    name: str
    argument: str
    help: str
    run: Run
    destroys: Destroys = ""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS: dict[str, Command] = {}


def _command(name: str, help: str, argument: str = "", *, destroys: Destroys = "") -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, argument, help, run, destroys)
        return run

    return register


CHATS_SHOWN = 20

WELCOME = "Hello! Say something, and a model on this machine answers. /help shows what else there is."


@_command("start", "say hello")
async def _start(call: Call) -> AsyncGenerator[Event, None]:
    yield Notice(WELCOME)


@_command("help", "show the commands")
async def _help(call: Call) -> AsyncGenerator[Event, None]:
    width = max(len(command.usage) for command in COMMANDS.values())
    yield Notice("\n".join(f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()))


@_command("imagine", "make a picture; --seed N and --style NAME may stand before", "TEXT")
async def _imagine(call: Call) -> AsyncGenerator[Event, None]:
    said = {"person": call.person, "message_id": call.message_id}
    async with aclosing(call.service.imagine(call.conversation, call.argument, **said)) as events:
        async for event in events:
            yield event


@_command("new", "start a new conversation")
async def _new(call: Call) -> AsyncGenerator[Event, None]:
    yield ConversationChanged(None)


@_command("chats", "show your conversations, or open one by its number", "[NUMBER]")
async def _chats(call: Call) -> AsyncGenerator[Event, None]:
    listed = await call.service.conversations.list(CHATS_SHOWN, person=call.person)
    if not listed:
        yield Notice("There are no conversations yet.")
    elif not call.argument:
        lines = (
            f"{'→' if conversation.id == call.conversation else ' '} {number}  {conversation.title or '(empty)'}"
            for number, conversation in enumerate(listed, 1)
        )
        yield Notice("\n".join([*lines, "/chats NUMBER opens one."]))
    elif not (call.argument.isdecimal() and 0 < int(call.argument) <= len(listed)):
        raise MessageError(f"Say a number from 1 to {len(listed)}: /chats NUMBER.")
    else:
        chosen = listed[int(call.argument) - 1]
        yield ConversationChanged(chosen.id)
        yield Notice(f"Here again: {chosen.title or '(empty)'}")


@_command("rename", "give the conversation another title", "TITLE")
async def _rename(call: Call) -> AsyncGenerator[Event, None]:
    if call.conversation is None:
        yield Failed("There is nothing to rename yet: the conversation is empty.")
    elif not call.argument:
        yield Failed("Say the title too: /rename TITLE.")
    else:
        await call.service.conversations.rename(call.conversation, call.argument)
        yield ConversationChanged(call.conversation)


@_command("delete", "delete the conversation", destroys="conversation")
async def _delete(call: Call) -> AsyncGenerator[Event, None]:
    if call.conversation is None:
        yield Failed("There is nothing to delete: the conversation is empty.")
    else:
        told = await call.service.delete(call.conversation)
        yield ConversationChanged(None)
        if told:
            yield Notice(told)


@_command("retry", "ask for another reply; the one before stays beside it")
async def _retry(call: Call) -> AsyncGenerator[Event, None]:
    async with aclosing(call.service.regenerate(call.here)) as events:
        async for event in events:
            yield event


@_command("edit", "say something else in the place of your last message, which stays beside it", "TEXT")
async def _edit(call: Call) -> AsyncGenerator[Event, None]:
    if not call.argument:
        raise MessageError("Say the new text too: /edit TEXT.")
    async with aclosing(call.service.edit(call.here, None, call.argument)) as events:
        async for event in events:
            yield event


@_command("continue", "go on with a reply that was cut")
async def _continue(call: Call) -> AsyncGenerator[Event, None]:
    async with aclosing(call.service.resume(call.here)) as events:
        async for event in events:
            yield event


@_command("stop", "stop the reply that is coming; what came of it stays")
async def _stop(call: Call) -> AsyncGenerator[Event, None]:
    stopped = call.conversation is not None and await call.service.stop(call.conversation)
    yield Notice("Stopped." if stopped else "No reply is coming.")


@_command("next", "show the next version of the last reply, or of what you said")
async def _next(call: Call) -> AsyncGenerator[Event, None]:
    yield await _turn_over(call, 1)


@_command("previous", "show the version before")
async def _previous(call: Call) -> AsyncGenerator[Event, None]:
    yield await _turn_over(call, -1)


async def _turn_over(call: Call, step: int) -> Event:
    conversations = call.service.conversations
    leaf_id = (await conversations.get(call.here)).leaf_id
    for message in reversed(await conversations.path(leaf_id, 2)):
        if message.siblings > 1:
            ids = await conversations.siblings(message.id)
            await call.service.switch(call.here, ids[(message.position - 1 + step) % len(ids)])
            return ConversationChanged(call.here)
    return Failed("There is no other version of it; /retry and /edit make one.")


@_command("fork", "go on from here in a conversation of its own; this one stays as it is")
async def _fork(call: Call) -> AsyncGenerator[Event, None]:
    leaf_id = (await call.service.conversations.get(call.here)).leaf_id
    if leaf_id is None:
        raise MessageError("There is nothing here yet: the conversation is empty.")
    yield ConversationChanged(await call.service.fork(call.here, leaf_id))


@_command("duplicate", "make a copy of the conversation with all its branches")
async def _duplicate(call: Call) -> AsyncGenerator[Event, None]:
    yield ConversationChanged(await call.service.duplicate(call.here))


@_command("context", "show what the model is sent now, as it is sent")
async def _context(call: Call) -> AsyncGenerator[Event, None]:
    from chatbot.context import shown  # with all that stands below it; the commands are known before that is loaded

    yield Notice(shown(await call.service.context(call.conversation)))


@_command("pin", "let what you said last always be sent, word for word, however long this grows")
async def _pin(call: Call) -> AsyncGenerator[Event, None]:
    await call.service.pin(await call.service.last_said(call.here), True)
    yield Notice("Pinned: the model is always given what you said last here.")


@_command("unpin", "undo /pin")
async def _unpin(call: Call) -> AsyncGenerator[Event, None]:
    await call.service.pin(await call.service.last_said(call.here), False)
    yield Notice("No longer pinned.")


@_command("good", "say that the last reply is good, and why", "[NOTE]")
async def _good(call: Call) -> AsyncGenerator[Event, None]:
    yield await _rate(call, 1)


@_command("bad", "say that the last reply is bad, and why", "[NOTE]")
async def _bad(call: Call) -> AsyncGenerator[Event, None]:
    yield await _rate(call, -1)


async def _rate(call: Call, value: Value) -> Event:
    await call.service.rate(await call.service.last_reply(call.here), value, call.argument, person=call.person)
    return Notice("Noted: the last reply is good." if value > 0 else "Noted: the last reply is bad.")


@_command("search", "find messages with all the words, in all your conversations", "WORDS")
async def _search(call: Call) -> AsyncGenerator[Event, None]:
    if not call.argument:
        raise MessageError("Say what to look for too: /search WORDS.")
    hits = await call.service.search(call.argument, person=call.person)
    lines = [f"{hit.created.astimezone():%Y-%m-%d %H:%M}  {hit.title}\n    {hit.snippet}" for hit in hits]
    yield Notice("\n".join(lines) or "Nothing was found.")


@_command("system", "show the system prompt, or give the conversation another", "[TEXT]")
async def _system(call: Call) -> AsyncGenerator[Event, None]:
    if not call.argument:
        yield Notice(f"System prompt: {await call.service.system(call.conversation)}")
    else:
        changed = await call.service.set_system(call.conversation, call.argument, person=call.person)
        yield ConversationChanged(changed)
        yield Notice(f"System prompt from now on: {call.argument}")


@_command("model", "show the model that answers, or let another answer here", "[NAME]")
async def _model(call: Call) -> AsyncGenerator[Event, None]:
    service = call.service
    if not call.argument:
        yield Notice(
            f"{await service.model(call.conversation)} answers here. `chatbot models list` shows what else there is, "
            "`/model default` is the one in use."
        )
        return
    changed: str | None = None
    wanted = "" if call.argument == "default" else call.argument
    async with aclosing(service.set_model(call.conversation, wanted, person=call.person)) as events:
        async for event in events:
            if isinstance(event, ConversationChanged):
                changed = event.conversation
            yield event
    yield Notice(f"{await service.model(changed)} answers here from now on.")


@_command("export", "write the conversation to a file, or all of yours: /export all", "[all]")
async def _export(call: Call) -> AsyncGenerator[Event, None]:
    from chatbot.transfer.write import export  # with all that stands below it, when it is wanted

    conversations = call.service.conversations
    if call.argument == "all":
        wanted = await conversations.list(person=call.person)
        text = "".join([piece async for piece in export(call.service.store, wanted, "json")])
        yield FileReady("conversations.json", text)
        return
    if call.argument:
        raise MessageError("It is /export for this conversation, or /export all for all of yours.")
    here = await conversations.get(call.here)
    text = "".join([piece async for piece in export(call.service.store, [here], "markdown")])
    yield FileReady(f"{file_name(here.title)}.md", text)


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"\W+", "-", title).strip("-")[:40] or "conversation"


@_command("stats", "show how much you have said here")
async def _stats(call: Call) -> AsyncGenerator[Event, None]:
    from storage.statistics import totals

    found = await totals(call.service.store.database, call.person)
    since = f", since {found.since:%Y-%m-%d}" if found.since else ""
    yield Notice(
        f"Conversations: {found.conversations:,}{since}\nMessages of yours: {found.said:,}\n"
        f"Replies: {found.replies:,}, {found.good:,} rated good and {found.bad:,} bad"
    )


@_command("forget", "delete everything of yours, in all conversations, for good", destroys="everything")
async def _forget(call: Call) -> AsyncGenerator[Event, None]:
    told = await call.service.forget(call.person)
    yield ConversationChanged(None)
    yield Notice(f"Everything of yours is deleted. {told}".rstrip())
