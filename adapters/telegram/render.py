"""Markdown as Telegram shows it: text and entities, in pieces of 4,096 UTF-16 units that end where a person would."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from telegram import MessageEntity
from telegramify_markdown import MessageEntity as Found
from telegramify_markdown import convert, utf16_len

LIMIT = 4096
MOST_ENTITIES = 100
STICKER = 512
"""Pixels of a sticker's longer side."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that fits in one message."""

    text: str
    entities: tuple[MessageEntity, ...] = ()


def pieces(markdown: str, limit: int = LIMIT) -> list[Piece]:
    """The messages that a reply takes; at least one."""
    return _cut(*convert(markdown), limit)


def plain(text: str, limit: int = LIMIT) -> list[Piece]:
    """The messages that take a text as it is."""
    return _cut(text, [], limit)


def _cut(text: str, found: Sequence[Found], limit: int) -> list[Piece]:
    made, start = [], 0
    while start < len(text):
        end = _end(text, found, start, limit)
        if piece := _piece(text, found, start, end):
            made.append(piece)
        start = end
    return made or [Piece("…")]


def _end(text: str, found: Sequence[Found], start: int, limit: int) -> int:
    """Where a message that begins at `start` ends: as late as it can; rather than within a code block, before that;
    else after a paragraph, a line, a word."""
    end = _within(text, start, limit)
    if end == len(text):
        return end
    half = start + (end - start) // 2
    at = utf16_len(text[:end])
    for block in found:
        if block.type == "pre" and block.offset < at < block.offset + block.length <= block.offset + limit:
            before = _index(text, block.offset)
            if before > start:
                return before
    for mark in ("\n\n", "\n", " "):
        if (found_at := text.rfind(mark, half, end + len(mark))) >= 0:
            return min(found_at + len(mark), end)
    return end


def _within(text: str, start: int, limit: int) -> int:
    """The furthest index from `start` with no more than `limit` UTF-16 units between."""
    end = min(len(text), start + limit)
    while utf16_len(text[start:end]) > limit:
        end -= max(1, (utf16_len(text[start:end]) - limit) // 2)
    return end


def _index(text: str, offset: int) -> int:
    """The index of the character at a UTF-16 offset."""
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * offset].decode("utf-16-le", "surrogatepass"))


def _piece(text: str, found: Sequence[Found], start: int, end: int) -> Piece | None:
    lead = len(text[start:end]) - len(text[start:end].lstrip("\n"))
    start += lead
    said = text[start:end].rstrip()
    if not said.strip():
        return None
    first, length = utf16_len(text[:start]), utf16_len(said)
    entities = []
    for entity in found:
        begin, stop = max(entity.offset - first, 0), min(entity.offset + entity.length - first, length)
        if begin < stop:
            values = {**entity.to_dict(), "offset": begin, "length": stop - begin}
            entities.append(MessageEntity(**values))
    return Piece(said, tuple(entities[:MOST_ENTITIES]))


def is_transparent(path: Path) -> bool:
    """Whether a picture is to be seen on any background: then it is a sticker."""
    from PIL import Image  # pictures are rare, and the bot starts without

    with Image.open(path) as image:
        low, _ = image.convert("RGBA").getchannel("A").getextrema()
        return int(low) < 255  # type: ignore[arg-type]  # of one band, a number


def sticker(path: Path) -> bytes:
    """A picture as a static sticker: WebP, one side 512 pixels, the other no longer."""
    from PIL import Image

    with Image.open(path) as image:
        scale = STICKER / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        held = io.BytesIO()
        image.convert("RGBA").resize(size, Image.Resampling.LANCZOS).save(held, "WEBP", lossless=True)
    return held.getvalue()
