"""Puts the parts together: settings in, an open ChatService out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chatbot.chat import ChatService
from chatbot.engines.load import Models
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.conversations import Conversations
from storage.database import Database
from storage.versions import Versions


@dataclass(frozen=True, slots=True)
class Store:
    """What stands on an open database."""

    conversations: Conversations
    registry: Registry


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the database, bring it up to date, and mark replies whose process died as interrupted.

    Raises:
        StorageError: it cannot be opened.
    """
    async with await Database.open(settings.database) as database:
        conversations = Conversations(database)
        await conversations.mark_interrupted()
        yield Store(conversations, Registry(Versions(database), settings))


@asynccontextmanager
async def open_service(settings: Settings, *, slots: int | None = None) -> AsyncIterator[ChatService]:
    """Open everything a front end needs. No model is loaded before the first message, or `models.responder`.

    Args:
        settings: of the whole program.
        slots: conversations answered at once, where fewer or more than the settings say.
    """
    async with open_store(settings) as store:
        service = ChatService(store.conversations, Models(store.registry, settings, slots=slots), settings)
        try:
            yield service
        finally:
            await service.close()
