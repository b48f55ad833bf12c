"""The picture model of a running chat: changed between two pictures, and never for one that does not load."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from chatbot import __version__
from chatbot.catalog import DEFAULTS
from chatbot.engines.load import Models
from chatbot.events import Progress
from chatbot.fetch import model_file
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.versions import Version
from tests.conftest import REAL_CACHE


def servers() -> int:
    """Processes that make pictures."""
    children = psutil.Process().children(recursive=True)
    return sum("chatbot.engines.aigc_server" in child.cmdline() for child in children)


async def candidate(store: Store, name: str, folder: Path) -> None:
    settings = {"engine": "aigc", "file": "model.safetensors"}
    await store.registry.add(
        Version("aigc", name, "1", folder=str(folder), checksum="", code_version=__version__, settings=settings)
    )
    await store.registry.promote(f"{name}@1")


async def test_a_promoted_version_draws_the_next_picture_and_a_broken_one_never(tmp_path: Path) -> None:
    settings = Settings.load()
    told: list[Progress] = []
    shipped = model_file(DEFAULTS["aigc"], REAL_CACHE / "models").parent
    async with open_store(settings) as store:
        models = Models(store.registry, settings)
        async with models.generator(told.append) as first:
            assert first.name == "stickers@2"
            shutil.copytree(shipped, tmp_path / "copy")
            await candidate(store, "copy", tmp_path / "copy")
            async with models.generator(told.append) as second:
                assert second.name == "copy@1"
                assert first.alive  # someone is still waiting for its picture
            assert [answer async for answer in first.imagine("a cat", seed=1)]
        assert servers() == 1
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "model.json").write_text("{}")
        (tmp_path / "broken" / "model.safetensors").write_bytes(b"")
        await candidate(store, "broken", tmp_path / "broken")
        async with models.generator(told.append) as third:
            assert third is second
        assert "copy@1 goes on" in told[-1].text
        await store.registry.rollback("aigc")
        await store.registry.rollback("aigc")
        async with models.generator(told.append) as fourth:
            assert fourth.name == "stickers@2"
        await models.close()
        assert servers() == 0
