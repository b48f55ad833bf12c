"""How models are loaded, and tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatbot.engines.base import Responder
from chatbot.engines.fake import ScriptedResponder
from chatbot.engines.load import Models
from chatbot.errors import ModelError
from chatbot.events import Progress
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.versions import Version
from tests.tiny_models import tiny_gguf

ONE, OTHER, THIRD = (f"{name}@http://localhost" for name in ("one", "other", "third"))


class Mortal(ScriptedResponder):
    """Takes as long to close as it has to keep what it read."""

    def __init__(self, name: str, may_close: asyncio.Event) -> None:
        super().__init__(name=name)
        self.dead = self.closed = False
        self._may_close = may_close

    @property
    def alive(self) -> bool:
        return not self.dead

    async def close(self) -> None:
        await self._may_close.wait()
        self.closed = True


class Faulty(Models):
    """Loads when it is told to, and fails as long as there is a failure."""

    may_end: asyncio.Event
    may_close: asyncio.Event
    failure: str
    loads: int
    made: list[Mortal]

    async def _load(self, version: Version) -> Responder:
        self.loads += 1
        await self.may_end.wait()
        if self.failure and version.name != "fake":
            raise ModelError(self.failure)
        self.made.append(Mortal(version.ref, self.may_close))
        return self.made[-1]


async def faulty(failure: str = "") -> Faulty:
    settings = Settings.load()
    async with open_store(settings) as store:
        models = Faulty(store.registry, settings)
    models.may_end, models.may_close = asyncio.Event(), asyncio.Event()
    models.failure, models.loads, models.made = failure, 0, []
    return models


async def both_idle() -> Faulty:
    """With two models loaded, one more than are kept."""
    models = await faulty()
    models.may_end.set()
    async with models.responder(nothing, ONE), models.responder(nothing, OTHER):
        pass
    return models


def nothing(progress: Progress) -> None:
    pass


async def test_a_load_for_which_nobody_waits_any_more_ends_and_is_begun_anew() -> None:
    models = await faulty()
    waiting = [asyncio.create_task(models.load(nothing)) for _ in range(2)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    await asyncio.sleep(0.05)
    assert not waiting[1].done(), "the other one still waits"
    waiting[1].cancel()
    await asyncio.sleep(0.05)
    models.may_end.set()
    await asyncio.sleep(0.05)
    assert not models.made
    assert (await models.load(nothing)).name == "smollm2-135m-instruct@q4_1"
    assert models.loads == 2


async def test_a_model_that_failed_takes_no_other_along() -> None:
    models = await faulty("Cannot fetch it: no network.")
    waiting = [asyncio.create_task(models.load(nothing, name)) for name in ("", "fake")]
    await asyncio.sleep(0.05)
    models.may_end.set()
    with pytest.raises(ModelError, match="no network"):
        await waiting[0]
    assert (await waiting[1]).name == "fake@1"


async def test_several_who_wait_for_one_load_all_hear_why_it_failed() -> None:
    models = await faulty("It is damaged.")
    waiting = [asyncio.create_task(models.load(nothing)) for _ in range(3)]
    await asyncio.sleep(0.05)
    models.may_end.set()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ModelError)
        assert str(result) == "It is damaged."
    assert models.loads == 1


async def test_two_turns_that_find_a_model_dead_load_one_in_its_place() -> None:
    models = await faulty()
    models.may_end.set()
    await models.load(nothing)
    models.made[0].dead = True
    turns = [asyncio.create_task(models.load(nothing)) for _ in range(2)]
    await asyncio.sleep(0.05)
    models.may_close.set()
    first, second = await asyncio.gather(*turns)
    assert first is second
    await models.close()
    assert [made.closed for made in models.made] == [True, True]


async def test_nobody_waits_for_a_model_that_is_closed_but_the_end() -> None:
    models = await both_idle()
    await asyncio.wait_for(models.load(nothing, THIRD), 5)
    closing = asyncio.create_task(models.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    models.may_close.set()
    await closing
    assert all(made.closed for made in models.made)


async def test_two_turns_at_once_make_room_for_one_model() -> None:
    models = await both_idle()
    turns = [asyncio.create_task(models.load(nothing, THIRD)) for _ in range(2)]
    await asyncio.sleep(0.05)
    models.may_close.set()
    await asyncio.gather(*turns)
    await models.close()
    assert [(made.name, made.closed) for made in models.made] == [(ref, True) for ref in (ONE, OTHER, THIRD)]


async def test_a_model_that_is_wanted_while_room_is_made_is_not_closed_under_its_reply() -> None:
    models = await both_idle()
    making_room = asyncio.create_task(models.load(nothing, THIRD))
    await asyncio.sleep(0.05)
    async with models.responder(nothing, ONE) as used:  # the second to be closed
        models.may_close.set()
        await making_room
        await asyncio.sleep(0.05)
        assert isinstance(used, Mortal)
        assert not used.closed
    await models.close()


async def test_the_name_of_a_gguf_file_may_be_in_capitals(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "TINY.GGUF", "never stops")
    settings = Settings.load()
    async with open_store(settings) as store:
        models = Models(store.registry, settings)
        try:
            assert (await models.load(nothing, str(tmp_path / "TINY.GGUF"))).name == "tiny@local"
        finally:
            await models.close()


@pytest.mark.parametrize("name", ["stickers", "all-minilm-l6-v2"])
async def test_what_does_not_chat_is_not_asked_to(name: str) -> None:
    models = await faulty("")
    with pytest.raises(ModelError, match="does not chat"):
        await models.load(nothing, name)
