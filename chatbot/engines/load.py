"""Loads the models that answer, each once, for all conversations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chatbot.engines.base import ImageGenerator, Responder
from chatbot.engines.head_start import HeadStart, start_server
from chatbot.engines.load_pictures import Pictures, load_generator
from chatbot.engines.trial import try_out
from chatbot.errors import ModelError
from chatbot.events import Progress
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.versions import Version

Notify = Callable[[Progress], None]


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model that is loaded, or about to be."""

    task: asyncio.Task[Responder]
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    @property
    def is_ready(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


class Models:
    """The one place that loads models.

    What is in use is looked up at each turn: a version that was promoted meanwhile, by whatever process, answers the
    next one, once it has shown that it can speak; one that cannot is marked as failed and rolled back from. A
    conversation may have a model of its own. Beyond `settings.loaded_models`, the one that was idle for longest
    gives its memory back, once another has been loaded in its place: a failed load takes nothing away. Nobody waits
    for a model that is closed, since what it has read may be kept first.

    Args:
        registry: knows which version answers, and fetches it.
        settings: `model` names another than the one in use.
        most_at_once: conversations that are ever answered at once by one model; more slots would be a waste.
        head_start: what may have been begun to be loaded already.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        *,
        most_at_once: int = 64,
        head_start: HeadStart | None = None,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._most_at_once = most_at_once
        self._head_start = head_start
        self._loaded: dict[str, _Loaded] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._versions: dict[str, Version] = {}
        self._listeners: list[Notify] = []
        self._pictures = Pictures(registry, settings)

    async def name(self, wanted: str = "") -> str:
        """`name@version` of what answers, loaded or not. `wanted`: NAME[@VERSION], or empty for the one in use."""
        return (await self._version(wanted)).ref

    async def load(self, notify: Notify, wanted: str = "") -> Responder:
        """The loaded model; the first call loads it, fetched where it has to be, and the others wait with it.

        `notify` hears of what takes long. Cancelling one caller leaves the loading to the others; with the last one
        it ends.

        Raises:
            ModelError: it is unknown, cannot be fetched or does not load; the next call tries again.
        """
        async with self.responder(notify, wanted) as responder:
            return responder

    @asynccontextmanager
    async def responder(self, notify: Notify, wanted: str = "") -> AsyncIterator[Responder]:
        """The same, kept loaded for as long as it is used here."""
        loaded = await self._one(notify, wanted)
        try:
            loaded.used = time.monotonic()
            self._make_room()
            yield loaded.task.result()
        finally:
            loaded.users -= 1
            loaded.used = time.monotonic()

    async def _one(self, notify: Notify, wanted: str) -> _Loaded:
        """The model that answers, loaded, with one user more."""
        while True:
            version = await self._version(wanted)
            if version.kind != "gpt":
                raise ModelError(f"{version.ref} does not chat; `chatbot models list --kind gpt` shows what does.")
            try:
                return await self._wait_for(version, notify)
            except ModelError as error:
                if wanted or self._settings.model:
                    raise
                failed = await self._registry.fail(version)
                before = await self._registry.current("gpt")
                if not failed and before.ref == version.ref:  # else someone else has rolled back meanwhile
                    raise
                notify(Progress(f"{error} It is rolled back; {before.ref} answers."))

    async def _wait_for(self, version: Version, notify: Notify) -> _Loaded:
        key = f"{version.ref} {version.checksum}"  # a name may come again, of other weights
        loaded = self._loaded.get(key)
        if loaded is not None and loaded.is_ready and not loaded.task.result().alive:
            self._let_go(key)
            loaded = None
        if loaded is None:
            loaded = self._loaded[key] = _Loaded(asyncio.create_task(self._load_and_try(version)))
            loaded.task.add_done_callback(partial(self._let_go_if_failed, key))
        loaded.users += 1
        if loaded.is_ready:
            return loaded
        self._listeners.append(notify)
        try:
            await asyncio.shield(loaded.task)
        except BaseException:
            loaded.users -= 1
            if not (loaded.users or loaded.task.done()) and self._loaded.get(key) is loaded:
                self._let_go(key)
            raise
        finally:
            self._listeners.remove(notify)
        return loaded

    def _let_go_if_failed(self, key: str, task: asyncio.Task[Responder]) -> None:
        """Whether or not someone still waits for it: the next call tries again."""
        if task.cancelled() or task.exception() is not None:
            if (loaded := self._loaded.get(key)) is not None and loaded.task is task:
                del self._loaded[key]
            self._versions.clear()

    def _let_go(self, key: str) -> None:
        """End a model, loaded or not, beside whatever else goes on."""
        closing = asyncio.create_task(_close(self._loaded.pop(key).task))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def generator(self, notify: Notify) -> AbstractAsyncContextManager[ImageGenerator]:
        """The picture model in use, loaded for as long as it is used here; `notify` hears of what takes long.

        Raises:
            ModelError: it cannot be fetched or does not load.
        """
        return self._pictures.generator(notify)

    async def close(self) -> None:
        """Stop loading, and give the memory back."""
        await self._pictures.close()
        for key in list(self._loaded):
            self._let_go(key)
        await asyncio.gather(*self._closing)

    async def _version(self, wanted: str) -> Version:
        named = wanted or self._settings.model
        if not named:
            return await self._registry.current("gpt")
        if named not in self._versions:
            self._versions[named] = await self._registry.find(named)
        return self._versions[named]

    def _make_room(self) -> None:
        idle = sorted(
            ((loaded.used, key) for key, loaded in self._loaded.items() if loaded.is_ready and not loaded.users),
        )
        for _, key in idle[: max(0, len(self._loaded) - self._settings.loaded_models)]:
            self._let_go(key)

    def _tell(self, text: str, fraction: float | None = None) -> None:
        for notify in self._listeners:
            notify(Progress(text, fraction))

    async def _load_and_try(self, version: Version) -> Responder:
        responder = await self._load(version)
        if await self._registry.is_promoted(version):
            self._tell(f"Trying {version.ref}")
            try:
                await try_out(responder)
            except BaseException:
                await responder.close()
                raise
        return responder

    async def _load(self, version: Version) -> Responder:
        settings = self._settings
        if version.settings["engine"] == "fake":
            from chatbot.engines.fake import ScriptedResponder, asked_pace

            return ScriptedResponder(delay=asked_pace)
        version = await self._registry.pulled(version, self._tell, self._tell)
        base = version
        if "base" in version.settings:  # an adapter: it is added to that one when it is loaded
            base = await self._registry.pulled(await self._registry.find(version.settings["base"]), self._tell)
        known: int | None = version.settings.get("context_length")
        context_length = min(known, settings.context) if known else settings.context
        engine = settings.engine or version.settings["engine"]
        self._tell(f"Loading {version.ref}")
        if self._head_start is not None and engine != "llamacpp":
            self._head_start.forget()
            await self._head_start.close()
        if version.settings["engine"] == "openai":
            from chatbot.engines.openai import OpenAIResponder

            return await OpenAIResponder.load(
                version.ref,
                version.settings["model"],
                version.settings["url"],
                context_length=context_length,
                timeout=settings.timeout,
            )
        path = self._registry.path(base)
        if engine == "hf":
            from chatbot.engines.hf import HfResponder, converted_folder

            return await HfResponder.load(
                path,
                version.ref,
                context_length=context_length,
                slots=min(settings.slots or 8, self._most_at_once),
                threads=settings.threads,
                device=settings.device,
                trust_remote_code=base.settings.get("trust_remote_code", False),
                converted=converted_folder(settings.cache, base.checksum),
                adapter=None if base is version else self._registry.folder(version),
                tell=self._tell,
            )
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{base.ref} is no GGUF file; the engine for it is hf.")
        adapter = None if base is version else self._registry.folder(version) / "adapter.gguf"
        if adapter is not None and not adapter.exists():
            raise ModelError(f"{version.ref} has no adapter.gguf; the engine for it is hf.")

        from chatbot.engines import llamacpp_tuning
        from chatbot.engines.llamacpp import LlamaCppResponder, prompt_format
        from chatbot.engines.prompt_cache import PromptCache

        known_as = f"{version.checksum[:16]}-{prompt_format()}"
        tuning = llamacpp_tuning.remembered(settings.tuning_file, known_as)
        if tuning is None and not (settings.threads and settings.slots):
            if self._head_start is not None:
                await self._head_start.close()  # or it would be measured beside what loads
            tuning = await llamacpp_tuning.measure(
                path,
                known_as,
                settings.tuning_file,
                context=context_length,
                tell=lambda: self._tell(f"Measuring once what this machine does best with {version.ref}"),
            )
            self._tell(f"Loading {version.ref}")
        slots = settings.slots or (tuning.slots if tuning else 1)
        return await LlamaCppResponder.load(
            path,
            version.ref,
            context_length=context_length,
            slots=min(slots, self._most_at_once),
            threads=settings.threads or (tuning.threads if tuning else 0),
            chat_template="" if base.settings.get("chat_template", True) else _template(adapter),
            speculate=settings.speculate,
            prompts=PromptCache(settings.prompts_folder, known_as),
            adapter=adapter,
            start=start_server if self._head_start is None else self._head_start.start,
        )


def _template(adapter: Path | None) -> str:
    """The chat template for a GGUF model that has none: that which its adapter was trained with, or a transcript."""
    from chatbot.engines.prompt import PLAIN_TEMPLATE

    if adapter is not None:
        with suppress(OSError):
            return adapter.with_name("chat_template.jinja").read_text(encoding="utf-8")
    return PLAIN_TEMPLATE


async def _close(loading: asyncio.Task[Responder]) -> None:
    loading.cancel()
    with suppress(asyncio.CancelledError, ModelError):
        await (await loading).close()


async def check_loads(registry: Registry, settings: Settings, version: Version, notify: Notify) -> None:
    """Load a version, and give its memory back: what is to answer from now on must be able to.

    Raises:
        ModelError: it does not load, or is of a kind that answers nothing.
    """
    if version.kind == "gpt":
        models = Models(registry, settings.model_copy(update={"model": version.ref}))
        try:
            await models.load(notify)
        finally:
            await models.close()
    elif version.kind == "aigc":
        generator = await load_generator(
            registry, settings, lambda text, fraction: notify(Progress(text, fraction)), version.ref
        )
        await generator.close()
    else:
        raise ModelError(f"{version.ref} reads for other models; it answers nothing itself.")
