"""A picture in the transcript, as well as the terminal can show it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from chatbot.terminal import Graphics

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.attachments import Attachment

ENLARGED = 8
"""A sticker of 64 pixels is drawn with so many times as many, so that terminals do not show its pixels as bricks."""

_LARGE = 512
CELLS_HIGH = 16


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a reply: where its PNG lies, and what it was made from."""

    path: Path
    prompt: str
    seed: int | None
    style: str
    model: str

    @classmethod
    def of(cls, attachment: Attachment, path: Path) -> Shown:
        """One that is kept."""
        known = attachment.details
        return cls(
            path,
            str(known.get("prompt", attachment.name)),
            known.get("seed"),
            str(known.get("style", "")),
            str(known.get("version", "")),
        )

    @property
    def line(self) -> str:
        return " · ".join(filter(None, ("" if self.seed is None else f"seed {self.seed}", self.style, self.model)))


class PictureView(Vertical):
    """A picture with a line about it beneath. Where its file is gone or damaged, that is what the line says."""

    def __init__(self, shown: Shown, how: Graphics) -> None:
        super().__init__(classes="picture")
        self.shown = shown
        self._how = how

    def compose(self) -> ComposeResult:
        try:
            yield _widget(self.shown.path, self._how, self.app.theme_variables.get("background", "#000000"))
        except (OSError, ValueError, SyntaxError):  # what Pillow raises
            yield Static("The file of the picture cannot be read.", markup=False, classes="mark")
            return
        yield Static(self.shown.line, markup=False, classes="mark")


def _widget(path: Path, how: Graphics, background: str) -> Widget:
    """Raises OSError, ValueError or SyntaxError where there is no picture to show."""
    from PIL import Image

    with _unasked():
        from textual_image.widget import HalfcellImage, SixelImage, TGPImage
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    if how != "cells":
        factor = max(1, min(ENLARGED, _LARGE // max(picture.size)))
        size = (picture.width * factor, picture.height * factor)
        picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    if how == "kitty":
        return TGPImage(picture)
    under = Image.new("RGBA", picture.size, background)
    flat = Image.alpha_composite(under, picture).convert("RGB")
    return SixelImage(flat) if how == "sixel" else HalfcellImage(flat)


@contextmanager
def _unasked() -> Iterator[None]:
    """textual_image asks the terminal when it is imported, and takes what is typed then for the answer: not ours."""
    if "textual_image" in sys.modules:
        yield
        return
    real, sys.__stdout__ = sys.__stdout__, TextIOWrapper(BytesIO())  # type: ignore[misc]  # nothing that can be asked
    try:
        yield
    finally:
        sys.__stdout__ = real  # type: ignore[misc]  # it is no constant for us
