"""The one registry of commands: slash commands, palette entries, bot commands and help all read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatbot.events import ConversationChanged, Event, Failed, Notice

if TYPE_CHECKING:
    from chatbot.chat import ChatService

Run = Callable[["ChatService", str | None, str], AsyncIterator[Event]]


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` names what may follow the command, or is empty; `run` takes the service, the id of the
    conversation (None: a new one) and what followed. A front end asks before it runs one that `destroys`."""

    name: str
    argument: str
    help: str
    run: Run
    destroys: bool = False

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS: dict[str, Command] = {}


def _command(name: str, help: str, argument: str = "", *, destroys: bool = False) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, argument, help, run, destroys)
        return run

    return register


@_command("help", "show the commands")
async def _help(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    width = max(len(command.usage) for command in COMMANDS.values())
    yield Notice("\n".join(f"{command.usage:<{width}}  {command.help}" for command in COMMANDS.values()))


@_command("new", "start a new conversation")
async def _new(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    yield ConversationChanged(None)


@_command("rename", "give the conversation another title", "TITLE")
async def _rename(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    if conversation is None:
        yield Failed("There is nothing to rename yet: the conversation is empty.")
    elif not argument:
        yield Failed("Say the title too: /rename TITLE.")
    else:
        await service.conversations.rename(conversation, argument)
        yield ConversationChanged(conversation)


@_command("delete", "delete the conversation", destroys=True)
async def _delete(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    if conversation is None:
        yield Failed("There is nothing to delete: the conversation is empty.")
    else:
        await service.delete(conversation)
        yield ConversationChanged(None)


@_command("system", "show the system prompt, or give the conversation another", "[TEXT]")
async def _system(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    if not argument:
        yield Notice(f"System prompt: {await service.system(conversation)}")
    else:
        changed = await service.set_system(conversation, argument)
        yield ConversationChanged(changed)
        yield Notice(f"System prompt from now on: {argument}")


@_command("model", "show the model that answers, or let another answer here", "[NAME]")
async def _model(service: ChatService, conversation: str | None, argument: str) -> AsyncIterator[Event]:
    if not argument:
        yield Notice(
            f"{await service.model(conversation)} answers here. `chatbot models list` shows what else there is, "
            "`/model default` is the one in use."
        )
        return
    changed: str | None = None
    async for event in service.set_model(conversation, "" if argument == "default" else argument):
        if isinstance(event, ConversationChanged):
            changed = event.conversation
        yield event
    yield Notice(f"{await service.model(changed)} answers here from now on.")
