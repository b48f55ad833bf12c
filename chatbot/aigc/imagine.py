"""From a prompt to pictures: reads it, says how it was understood where that is not plain, and makes PNGs."""

from __future__ import annotations

import io
import math
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from chatbot import __version__
from chatbot.aigc import chinese
from chatbot.aigc.model import UNKNOWN, PictureModel, words
from chatbot.aigc.text import TextEncoder
from chatbot.engines.base import Picture
from chatbot.errors import ModelError

_BATCH = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be made: a vector (n, text), a seed and a style number for each picture, and what to say before."""

    prompt: str
    vectors: Tensor
    seeds: tuple[int, ...]
    styles: tuple[int, ...]
    notices: tuple[str, ...]


class Imagination:
    """A model and its text encoder. Raises ModelError where either cannot be loaded."""

    def __init__(self, model: Path, encoder: Path, name: str, *, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.name = name
        self.model = PictureModel(model)
        self.styles = self.model.styles if any(self.model.styles) else []
        try:
            self._encoder = TextEncoder(encoder) if self.model.conditioning == "text" else None
        except (OSError, ValueError) as error:
            raise ModelError(f"The text encoder in {encoder} cannot be loaded ({error}).") from None

    def warm_up(self) -> None:
        """Make a picture for nobody: the first one takes several times as long as those after it."""
        if self.model.conditioning != "classes":
            list(self.pictures(self.plan("a picture", seed=0)))

    def plan(self, prompt: str, count: int = 1, seed: int | None = None, style: str = "") -> Plan:
        """Read a prompt. Raises ModelError for a style that the model does not know."""
        if style and style not in self.styles:
            known = f"it knows {', '.join(self.styles)}" if self.styles else "it has no styles"
            raise ModelError(f"{self.name} does not know the style '{style}'; {known}.")
        first = secrets.randbelow(2**31) if seed is None else seed
        seeds = tuple(first + n for n in range(count))
        styles = tuple(self.model.styles.index(style) if style else self.model.style_of(each) for each in seeds)
        vectors, notices = self._read(prompt, seeds)
        return Plan(prompt, vectors, seeds, styles, tuple(notices))

    def pictures(self, plan: Plan) -> Iterator[Picture]:
        """Make them, a few at a time."""
        for start in range(0, len(plan.seeds), _BATCH):
            seeds, styles = plan.seeds[start : start + _BATCH], plan.styles[start : start + _BATCH]
            made = self.model.make(plan.vectors[start : start + _BATCH], styles, seeds)
            for image, seed, number in zip(made, seeds, styles, strict=True):
                style = self.model.styles[number] if self.styles else ""
                yield Picture(self._png(image, plan.prompt, seed, style), seed, style)

    def _read(self, prompt: str, seeds: Sequence[int]) -> tuple[Tensor, list[str]]:
        if self.model.conditioning == "none":
            notices = [f"{self.name} was trained without captions; it does not read the prompt."] if prompt else []
            return torch.zeros(len(seeds), 0), notices
        if self._encoder is None:
            vector, notices = self._class(prompt)
            return vector.expand(len(seeds), -1), notices
        english = (chinese.to_english(prompt) or "") if chinese.has_han(prompt) else prompt
        vector = self._encoder.embed([english])[0]
        named = self.model.named(english)
        understood = [self.model.understand(vector, seed, named) for seed in seeds]
        taken = list(dict.fromkeys(one.taken_for for one in understood))
        notices = []
        if prompt and not english:
            notices.append(f"{self.name} reads English, and Chinese only word by word; it knows no word of this.")
        elif prompt and math.isnan(understood[0].likeness):
            notices.append(f"{self.name} has no memory of captions, and cannot tell whether it knows what this is.")
        elif understood[0].likeness < UNKNOWN:
            notices.append(f"{self.name} may not know what this is; it takes it for {_either(taken)}.")
        elif not all(_said(name, prompt) for name in taken):
            notices.append(f"Read as: {', '.join(taken)}")
        return torch.stack([one.vector for one in understood]), notices

    def _class(self, prompt: str) -> tuple[Tensor, list[str]]:
        """The longest class that the prompt names; where it names none, one that is the same each time."""
        names = [name.lower() for name in self.model.concepts]
        found = [
            number for number, name in enumerate(names) if re.search(rf"\b{re.escape(name)}\b", prompt, re.IGNORECASE)
        ]
        if found:
            return self.model.known[max(found, key=lambda number: len(names[number]))], []
        number = zlib.crc32(prompt.encode(errors="replace")) % len(names)
        some = ", ".join(self.model.concepts[:8]) + (" …" if len(names) > 8 else "")
        notice = f"{self.name} knows classes only ({some}), and none is in the prompt; this is “{names[number]}”."
        return self.model.known[number], [notice]

    def _png(self, image: Image.Image, prompt: str, seed: int, style: str) -> bytes:
        info = PngInfo()
        for key, value in (("prompt", prompt), ("seed", str(seed)), ("style", style), ("version", self.name)):
            info.add_itxt(key, value)
        info.add_text("Software", f"chatbot {__version__}")
        held = io.BytesIO()
        image.save(held, "PNG", pnginfo=info)
        return held.getvalue()


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"“{name}”" for name in names)


def _said(name: str, prompt: str) -> bool:
    """Whether all words of a name are in a prompt, whatever else is."""
    said = {word.removesuffix("s") for word in words(prompt)}
    return all(word.removesuffix("s") in said for word in words(name))
