"""What Telegram refuses in a message."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

LONGEST = 4096
KINDS = (
    "bold", "italic", "underline", "strikethrough", "spoiler", "code", "pre", "text_link", "blockquote",
    "expandable_blockquote", "custom_emoji", "mention", "hashtag", "url", "email", "bot_command",
)  # fmt: skip


class Refused(Exception):
    """An error of the Bot API."""

    def __init__(self, description: str, code: int = 400) -> None:
        super().__init__(description)
        self.code = code


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def check_text(text: object, *, least: int) -> str:
    """A text of an allowed length; Telegram counts in UTF-16 units."""
    if not isinstance(text, str) or (least and not text.strip()):
        raise Refused("Bad Request: message text is empty")
    if units(text) > LONGEST:
        raise Refused("Bad Request: message is too long")
    return text


def check_entities(text: str, entities: list[dict[str, Any]]) -> None:
    """Known kinds, that begin and end within the text and split no character."""
    encoded = text.encode("utf-16-le")
    for entity in entities:
        begin, length = entity.get("offset"), entity.get("length")
        if type(begin) is not int or type(length) is not int or begin < 0 or length <= 0:
            raise Refused("Bad Request: can't parse entities: wrong offset")
        if begin + length > units(text):
            raise Refused("Bad Request: ENTITY_BOUNDS_INVALID")
        if entity.get("type") not in KINDS or (entity["type"] == "text_link" and not entity.get("url")):
            raise Refused("Bad Request: can't parse entities: wrong type")
        try:
            encoded[2 * begin : 2 * (begin + length)].decode("utf-16-le")
        except UnicodeDecodeError:
            raise Refused("Bad Request: can't parse entities: a character is split") from None


def check_buttons(markup: Any) -> None:
    for row in (markup or {}).get("inline_keyboard", []):
        for button in row:
            data = button.get("callback_data", "")
            if not 1 <= len(data.encode()) <= 64:
                raise Refused("Bad Request: BUTTON_DATA_INVALID")
            if not button.get("text"):
                raise Refused("Bad Request: BUTTON_TEXT_INVALID")


def sticker_size(data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether it is transparent; a static sticker is WebP or PNG with a side of 512 pixels."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format not in ("WEBP", "PNG") or max(image.size) != 512:
                raise Refused("Bad Request: STICKER_DIMENSIONS_INVALID")
            low, _ = image.convert("RGBA").getchannel("A").getextrema()
            return (*image.size, int(low) < 255)  # type: ignore[arg-type]  # of one band, a number
    except OSError:
        raise Refused("Bad Request: wrong file type") from None
