"""Puts the parts together: settings in, an open ChatService out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatbot.chat import ChatService
from chatbot.engines.load import Models
from chatbot.settings import Settings
from chatbot.store import open_store


@asynccontextmanager
async def open_service(settings: Settings, *, most_at_once: int = 64) -> AsyncIterator[ChatService]:
    """Open everything a front end needs. No model is loaded before the first message, or `models.responder`.

    Args:
        settings: of the whole program.
        most_at_once: conversations that are ever answered at once.
    """
    async with open_store(settings) as store:
        service = ChatService(store, Models(store.registry, settings, most_at_once=most_at_once), settings)
        try:
            yield service
        finally:
            await service.close()
