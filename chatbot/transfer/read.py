"""Finds out what a file of conversations is, and reads it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from chatbot.errors import UserError
from chatbot.text import clean
from chatbot.transfer.chatgpt import from_chatgpt, is_chatgpt
from chatbot.transfer.shape import FORMAT, ConversationShape, FileShape
from chatbot.transfer.sharegpt import from_sharegpt, is_sharegpt

_PART_OF_EXPORT = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
MOST_BYTES = 2**31

T = TypeVar("T")


def parse(data: bytes) -> list[ConversationShape]:
    """The conversations in a file.

    It is our own JSON; ChatGPT's `conversations.json`, or the archive it comes in; ShareGPT, or chat messages, as a
    JSON array or a line each.

    Raises:
        UserError: it is none of these, or damaged.
    """
    if data.startswith(b"PK\x03\x04"):
        return [shape for part in _unpacked(data) for shape in parse(part)]
    content = _json(data)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return _checked(FileShape.model_validate, content).conversations
    entries = content if isinstance(content, list) else [content]
    shapes = [_checked(_foreign, entry) for entry in entries]
    return [shape for shape in shapes if shape is not None]


def _checked(read: Callable[[Any], T], content: Any) -> T:
    try:
        return read(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(clean(f"The file cannot be imported: {place}: {first['msg']}.")) from None
    except RecursionError:
        raise UserError("The file cannot be imported: it is nested too deeply.") from None


def _foreign(entry: Any) -> ConversationShape | None:
    if is_chatgpt(entry):
        return from_chatgpt(entry)
    if is_sharegpt(entry):
        return from_sharegpt(entry)
    raise UserError("The file cannot be imported: it is no export of chatbot, ChatGPT or ShareGPT.")


def _json(data: bytes) -> Any:
    try:
        text = data.decode("utf-8-sig")
        try:
            return json.loads(text)
        except ValueError:
            if not text.strip():
                raise
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise UserError("The file cannot be imported: it is no JSON, or was cut off.") from None


def _unpacked(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if _PART_OF_EXPORT.fullmatch(name)]
            if not names:
                raise UserError("The archive cannot be imported: there is no conversations.json in it.")
            if sum(archive.getinfo(name).file_size for name in names) > MOST_BYTES:
                raise UserError("The archive cannot be imported: what it holds is too large.")
            for name in names:
                yield archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"The archive cannot be read: {error}.") from None
