"""Commands that the terminal chat shares with other front ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.test_tui import Driven
from tui.dialogs import DeleteDialog


@pytest.fixture
def driven() -> Driven:
    return Driven()


async def test_exporting_writes_a_file_beside_what_is_there(
    driven: Driven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with driven.run():
        await driven.say_and_wait("hello")
        for count in (1, 2):
            await driven.say("/export")
            await driven.until(lambda count=count: sum("Written:" in text for text in driven.notices()) == count)
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["hello-2.md", "hello.md"]
    assert "hello" in (tmp_path / "hello.md").read_text()


async def test_forgetting_everything_asks_first(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.say("/forget")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("n")
        assert driven.said() == ["hello"]
        await driven.say("/forget")
        await driven.until(lambda: isinstance(driven.app.screen, DeleteDialog))
        await driven.pilot.press("y")
        await driven.until(lambda: any("Everything of yours is deleted." in text for text in driven.notices()))
        assert driven.said() == []


async def test_chats_are_listed_and_opened_by_number(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("first")
        await driven.say("/new")
        await driven.until(lambda: not driven.said())
        await driven.say_and_wait("second")
        await driven.say("/chats")
        await driven.until(lambda: any("→ 1  second" in text for text in driven.notices()))
        await driven.say("/chats 2")
        await driven.until(lambda: driven.said() == ["first"])
