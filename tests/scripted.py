"""A chat service on a real database whose model follows a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from chatbot.chat import ChatService
from chatbot.engines.base import ImageGenerator, Responder
from chatbot.engines.fake import Script, ScriptedGenerator, ScriptedResponder, echo
from chatbot.engines.load import Models, Notify
from chatbot.events import Event, Failed, Finished, Started
from chatbot.settings import Settings
from chatbot.store import open_store


class ScriptedModels:
    """Stands where `Models` does; always gives the one responder."""

    def __init__(self, responder: ScriptedResponder, pictures: ScriptedGenerator | None = None) -> None:
        self.one = responder
        self.pictures = pictures or ScriptedGenerator()

    async def name(self, wanted: str = "") -> str:
        return self.one.name

    @asynccontextmanager
    async def responder(self, notify: Notify, wanted: str = "") -> AsyncIterator[Responder]:
        yield self.one

    @asynccontextmanager
    async def generator(self, notify: Notify) -> AsyncIterator[ImageGenerator]:
        yield self.pictures

    async def close(self) -> None:
        return None


@asynccontextmanager
async def scripted_service(
    script: Script = echo, *, delay: float = 0.0, context_length: int = 4096, **settings: Any
) -> AsyncIterator[ChatService]:
    loaded = Settings.load(**settings)
    models = ScriptedModels(ScriptedResponder(script, delay=delay, context_length=context_length))
    async with open_store(loaded) as store:
        service = ChatService(store, cast(Models, models), loaded)
        try:
            yield service
        finally:
            await service.close()


async def listen(events: AsyncGenerator[Event, None]) -> tuple[Started, Finished]:
    """Hear a turn to its end, which must be a good one."""
    started: Started | None = None
    finished: Finished | None = None
    async with aclosing(events):
        async for event in events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Started):
                started = event
            elif isinstance(event, Finished):
                finished = event
    assert started is not None
    assert finished is not None
    return started, finished


async def failure(events: AsyncGenerator[Event, None]) -> str:
    """Hear a turn, or a command, that fails; gives its sentence."""
    async with aclosing(events):
        heard = [event async for event in events]
    assert isinstance(heard[-1], Failed), heard
    return heard[-1].text
