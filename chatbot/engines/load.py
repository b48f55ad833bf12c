"""Loads the model that answers, once, for all conversations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from chatbot.engines.base import Responder
from chatbot.errors import ModelError
from chatbot.events import Notice
from chatbot.registry import Registry
from chatbot.settings import Settings

Notify = Callable[[Notice], None]


class Models:
    """The one place that loads models.

    Args:
        registry: knows which version answers, and fetches it.
        settings: `model` names another than the one in use.
        slots: conversations answered at once.
    """

    def __init__(self, registry: Registry, settings: Settings, *, slots: int | None = None) -> None:
        self._registry = registry
        self._settings = settings
        self._slots = slots or settings.slots
        self._loading: asyncio.Task[Responder] | None = None
        self._listeners: list[Notify] = []

    async def name(self) -> str:
        """`name@version` of what answers, loaded or not."""
        if self._settings.model:
            return (await self._registry.find(self._settings.model)).ref
        return (await self._registry.current("gpt")).ref

    async def responder(self, notify: Notify) -> Responder:
        """The loaded model; the first call loads it, fetched where it has to be, and the others wait with it.

        `notify` hears of what takes long. Cancelling one caller leaves the loading to the others.

        Raises:
            ModelError: it is unknown, cannot be fetched or does not load; the next call tries again.
        """
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        loading = self._loading
        self._listeners.append(notify)
        try:
            return await asyncio.shield(loading)
        finally:
            self._listeners.remove(notify)
            if loading.done() and self._loading is loading and (loading.cancelled() or loading.exception()):
                self._loading = None

    async def close(self) -> None:
        """Stop loading, and give the memory back."""
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.cancel()
            with suppress(asyncio.CancelledError, ModelError):
                await (await loading).close()

    def _tell(self, text: str, fraction: float | None = None) -> None:
        for notify in self._listeners:
            notify(Notice(text, fraction))

    async def _load(self) -> Responder:
        registry, settings = self._registry, self._settings
        version = await (registry.find(settings.model) if settings.model else registry.current("gpt"))
        if version.settings["engine"] == "fake":
            from chatbot.engines.fake import ScriptedResponder

            return ScriptedResponder()
        path = await registry.ready(version, self._tell)
        self._tell(f"Loading {version.ref}")

        from chatbot.engines.llamacpp import LlamaCppResponder

        return await LlamaCppResponder.load(
            path,
            version.ref,
            context_length=min(version.settings["context_length"], settings.context),
            slots=self._slots,
            threads=settings.threads,
        )
