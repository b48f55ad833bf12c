"""Puts the parts together: settings in, an open ChatService out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatbot.chat import ChatService
from chatbot.engines.head_start import HeadStart
from chatbot.engines.load import Models
from chatbot.settings import Settings
from chatbot.store import open_store


@asynccontextmanager
async def open_service(
    settings: Settings, *, most_at_once: int = 64, head_start: HeadStart | None = None
) -> AsyncIterator[ChatService]:
    """Open everything a front end needs. No model is loaded before the first message, or `models.responder`.

    Args:
        settings: of the whole program.
        most_at_once: conversations that are ever answered at once.
        head_start: what may have been begun to be loaded already.
    """
    async with open_store(settings) as store:
        models = Models(store.registry, settings, most_at_once=most_at_once, head_start=head_start)
        service = ChatService(store, models, settings)
        try:
            yield service
        finally:
            await service.close()
