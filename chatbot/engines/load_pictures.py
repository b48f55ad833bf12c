"""Loads the model that makes pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chatbot.catalog import DEFAULTS
from chatbot.engines.base import ImageGenerator
from chatbot.engines.fake import ScriptedGenerator
from chatbot.errors import ModelError
from chatbot.events import Progress
from chatbot.fetch import Tell, fetch
from chatbot.registry import Registry
from chatbot.settings import Settings


async def load_generator(registry: Registry, settings: Settings, tell: Tell, wanted: str = "") -> ImageGenerator:
    """The picture model in use, or the one that `wanted` names (NAME[@VERSION], or its folder), in its own process.

    Raises:
        ModelError: it is unknown, no picture model, or does not load.
    """
    from chatbot.engines.aigc import AigcGenerator

    folder, name = await model_folder(registry, tell, wanted)
    encoder = await fetch(DEFAULTS["encoder"], settings.models_folder, tell)
    tell(f"Loading {name}", None)
    return await AigcGenerator.load(folder, encoder.parent, name, threads=settings.threads)


async def model_folder(registry: Registry, tell: Tell, wanted: str) -> tuple[Path, str]:
    """Folder and name of a picture model. Raises ModelError."""
    path = Path(wanted).expanduser()
    if wanted and (path / "model.json").is_file():
        return path.resolve(), path.resolve().name
    version = await (registry.find(wanted) if wanted else registry.current("aigc"))
    if version.kind != "aigc":
        raise ModelError(f"{version.ref} makes no pictures; `chatbot models list --kind aigc` shows what does.")
    version = await registry.pulled(version, tell)
    return registry.path(version).parent, version.ref


@dataclass(slots=True, eq=False)
class _Loaded:
    """A picture model, and how many pictures it is making."""

    generator: ImageGenerator
    users: int = 0


class Pictures:
    """The picture model in use, loaded when a picture is first asked for, and changed between two pictures when
    another is in use. One that does not load changes nothing: the one before goes on."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._lock = asyncio.Lock()
        self._loaded: _Loaded | None = None
        self._failed = ""  # a version that did not load while another went on

    @asynccontextmanager
    async def generator(self, notify: Callable[[Progress], None]) -> AsyncIterator[ImageGenerator]:
        """Raises ModelError where there is none that loads."""
        async with self._lock:
            loaded = await self._current(lambda text, fraction: notify(Progress(text, fraction)))
            loaded.users += 1
        try:
            yield loaded.generator
        finally:
            loaded.users -= 1
            if loaded is not self._loaded and not loaded.users:  # another took its place meanwhile
                await loaded.generator.close()

    async def _current(self, tell: Tell) -> _Loaded:
        before = self._loaded
        if before is not None and not before.generator.alive:
            await before.generator.close()
            before = self._loaded = None
        if self._settings.model == "fake":  # no model answers, neither in words nor in pictures
            self._loaded = before or _Loaded(ScriptedGenerator())
            return self._loaded
        wanted = (await self._registry.current("aigc")).ref
        if before is not None and wanted in (before.generator.name, self._failed):
            return before
        try:
            self._loaded = _Loaded(await load_generator(self._registry, self._settings, tell))
        except ModelError as error:
            if before is None:
                raise
            self._failed = wanted
            tell(f"{error} {before.generator.name} goes on.", None)
            return before
        self._failed = ""
        if before is not None and not before.users:
            await before.generator.close()
        return self._loaded

    async def close(self) -> None:
        """Give the memory back."""
        if self._loaded is not None:
            await self._loaded.generator.close()
            self._loaded = None
