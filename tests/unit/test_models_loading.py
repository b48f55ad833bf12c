"""How models are loaded, and tried again."""

from __future__ import annotations

import asyncio

import pytest

from chatbot.engines.base import Responder
from chatbot.engines.fake import ScriptedResponder
from chatbot.engines.load import Models
from chatbot.errors import ModelError
from chatbot.events import Progress
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.versions import Version


class Faulty(Models):
    """Loads when it is told to, and fails as long as there is a failure."""

    may_end: asyncio.Event
    failure: str
    loads: int

    async def _load(self, version: Version) -> Responder:
        self.loads += 1
        await self.may_end.wait()
        if self.failure and version.name != "fake":
            raise ModelError(self.failure)
        return ScriptedResponder(name=version.ref)


async def faulty(failure: str) -> Faulty:
    settings = Settings.load()
    async with open_store(settings) as store:
        models = Faulty(store.registry, settings)
    models.may_end, models.failure, models.loads = asyncio.Event(), failure, 0
    return models


def nothing(progress: Progress) -> None:
    pass


async def test_a_load_that_failed_while_nobody_waited_is_tried_again() -> None:
    models = await faulty("Cannot fetch it: no network.")
    waiting = asyncio.create_task(models.load(nothing))
    await asyncio.sleep(0.05)
    waiting.cancel()
    models.may_end.set()
    await asyncio.sleep(0.05)
    models.failure = ""
    assert (await models.load(nothing)).name == "smollm2-135m-instruct@q4_1"
    assert models.loads == 2


async def test_a_model_that_failed_takes_no_other_along() -> None:
    models = await faulty("Cannot fetch it: no network.")
    waiting = asyncio.create_task(models.load(nothing))
    await asyncio.sleep(0.05)
    waiting.cancel()
    models.may_end.set()
    assert (await models.load(nothing, "fake")).name == "fake@1"


async def test_several_who_wait_for_one_load_all_hear_why_it_failed() -> None:
    models = await faulty("It is damaged.")
    waiting = [asyncio.create_task(models.load(nothing)) for _ in range(3)]
    await asyncio.sleep(0.05)
    models.may_end.set()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ModelError)
        assert str(result) == "It is damaged."
    assert models.loads == 1


@pytest.mark.parametrize("name", ["stickers", "all-minilm-l6-v2"])
async def test_what_does_not_chat_is_not_asked_to(name: str) -> None:
    models = await faulty("")
    with pytest.raises(ModelError, match="does not chat"):
        await models.load(nothing, name)
