"""Pictures in the terminal chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from textual.widgets import Input
from textual_image.widget import HalfcellImage, SixelImage, TGPImage

from chatbot.terminal import graphics
from tests.functional.test_tui import Driven
from tui.dialogs import LineDialog
from tui.message import ReplyView
from tui.picture import PictureView


@pytest.fixture
def driven() -> Driven:
    return Driven()


def pictures(driven: Driven) -> list[PictureView]:
    return list(driven.app.chat.query(PictureView))


async def ask(driven: Driven, text: str = "draw me a red fox") -> None:
    before = len(pictures(driven))
    await driven.say(text)
    await driven.until(lambda: len(pictures(driven)) > before and driven.status == "ready")


async def test_a_plain_request_shows_a_picture_and_a_line(driven: Driven) -> None:
    async with driven.run():
        await ask(driven)
        (view,) = pictures(driven)
        assert view.shown.prompt == "a red fox"
        assert view.query_one(HalfcellImage).size.height > 4
        assert driven.replies() == ["Here is a picture: a red fox."]
        assert driven.app.chat.status.model == "fake@1"  # what answers in words stays named


async def test_the_picture_is_there_again_when_the_conversation_is_opened_again(driven: Driven) -> None:
    async with driven.run():
        await ask(driven)
        (seed,) = (view.shown.seed for view in pictures(driven))
        await driven.pilot.press("ctrl+n")
        await driven.until(lambda: not pictures(driven) and not driven.said())
        await driven.app.chat.opening.switch((await driven.app.chat.service.conversations.list())[0].id)
        await driven.until(lambda: pictures(driven))
        assert [view.shown.seed for view in pictures(driven)] == [seed]


async def test_r_makes_another_with_another_seed_beside_it(driven: Driven) -> None:
    async with driven.run():
        await ask(driven)
        first = pictures(driven)[0].shown.seed
        await driven.pilot.press("shift+tab", "r")
        await driven.until(lambda: [view.shown.seed for view in pictures(driven)] not in ([], [first]))
        await driven.until(lambda: driven.marks() == ["‹2/2›"])
        await driven.pilot.press("left")
        await driven.until(lambda: [view.shown.seed for view in pictures(driven)] == [first])


async def test_w_saves_it_where_the_person_says(driven: Driven, tmp_path: Path) -> None:
    async with driven.run():
        await ask(driven)
        await driven.pilot.press("shift+tab", "w")
        await driven.until(lambda: isinstance(driven.app.screen, LineDialog))
        dialog = driven.app.screen
        assert dialog.query_one(Input).value == "a-red-fox.png"
        dialog.query_one(Input).value = str(tmp_path / "fox.png")
        await driven.pilot.press("enter")
        await driven.until(lambda: (tmp_path / "fox.png").exists())
        assert Image.open(tmp_path / "fox.png").size == (8, 8)


async def test_o_says_where_it_lies_where_there_is_no_desktop(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    async with driven.run():
        await ask(driven)
        await driven.pilot.press("shift+tab", "o")
        await driven.until(lambda: any("no desktop" in text for text in driven.toasts()))


async def test_a_reply_in_words_has_nothing_to_save(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        await driven.pilot.press("shift+tab", "w")
        await driven.until(lambda: any("not for this message" in text for text in driven.toasts()))


async def test_a_file_that_is_gone_is_said_in_its_place(driven: Driven) -> None:
    async with driven.run():
        await ask(driven)
        pictures(driven)[0].shown.path.unlink()
        (view,) = driven.app.chat.query(ReplyView)
        await driven.app.chat.opening.switch(None)
        await driven.app.chat.opening.switch(view.message.conversation_id)
        await driven.until(lambda: any("cannot be read" in str(s.render()) for s in driven.app.chat.query(".mark")))


async def test_what_does_not_load_is_said_and_the_chat_goes_on(driven: Driven) -> None:
    async with driven.run():
        await driven.say_and_wait("hello")
        driven.models.failure = "No picture model here."
        await driven.say("/imagine a fox")
        await driven.until(lambda: "No picture model here." in driven.marks())
        driven.models.failure = ""
        await ask(driven, "/imagine a fox")


@pytest.mark.parametrize(("setting", "widget"), [("kitty", TGPImage), ("sixel", SixelImage)])
async def test_a_terminal_that_can_do_more_is_given_more(
    driven: Driven, setting: str, widget: type[TGPImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATBOT_GRAPHICS", setting)
    async with driven.run():
        await ask(driven)
        assert pictures(driven)[0].query_one(widget).size.height > 4


@pytest.mark.parametrize(
    ("environment", "how"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, "cells"),
        ({"TERM_PROGRAM": "WezTerm"}, "sixel"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, "cells"),
        ({}, "cells"),
    ],
)
def test_terminals_are_known_by_their_environment(environment: dict[str, str], how: str) -> None:
    assert graphics(environment) == how
