"""What a file of conversations holds. Its JSON is stable: keys may be added, none goes or changes its meaning."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Base64Encoder,
    BaseModel,
    BeforeValidator,
    EncodedBytes,
    Field,
    StringConstraints,
)

from chatbot.text import clean
from storage.people import LOCAL
from storage.records import Role, Status

FORMAT: Literal["chatbot"] = "chatbot"
VERSION: Literal[1] = 1


class OneLine(Base64Encoder):
    """Base64 without line breaks."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)


DEEPEST = 16
LARGEST = 2**53
"""What JSON numbers are exact up to, for every program that reads them."""


def _moment(value: datetime) -> datetime:
    if not EARLIEST <= value < LATEST:
        raise ValueError(f"is not between the years {EARLIEST.year} and {LATEST.year}")
    return value


def _figures(value: Any) -> Any:
    """The numbers of a reply's cost, without what is none."""
    return {name: one for name, one in value.items() if _is_number(one)} if isinstance(value, dict) else value


def _tidy(value: Any, depth: int = 0) -> Any:
    """What every JSON reader takes: text that can be written, numbers that can be said, no deeper than `DEEPEST`."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict | list) and depth == DEEPEST:
        return None
    if isinstance(value, dict):
        return {clean(str(name)): _tidy(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_tidy(one, depth + 1) for one in value]
    return value if isinstance(value, bool) or _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)

Clean = Annotated[str, AfterValidator(clean)]
Moment = Annotated[AwareDatetime, AfterValidator(_moment)]
"""One that every time zone can show."""
Figures = Annotated[dict[Clean, float | int], BeforeValidator(_figures)]
Details = Annotated[dict[str, Any], BeforeValidator(_tidy)]
Base64 = Annotated[bytes, EncodedBytes(encoder=OneLine)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,31}$")]
"""An id may become the name of a file, and stands on command lines, where what begins with `-` is an option."""


class PersonShape(BaseModel):
    """Someone, as a platform knows them."""

    platform: Annotated[Clean, Field(max_length=32)] = LOCAL
    external_id: Annotated[Clean, Field(max_length=128)] = ""
    name: Clean = ""


class FeedbackShape(BaseModel):
    """What someone thinks of a reply."""

    person: PersonShape = PersonShape()
    value: Literal[-1, 1]
    note: Clean = ""
    created: Moment
    updated: Moment


class AttachmentShape(BaseModel):
    """A file of a message; `data` is its bytes in Base64, null where they were lost."""

    id: Id
    name: Clean
    media_type: Clean
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, lt=2**63)]
    details: Details = {}
    data: Base64 | None


class SummaryShape(BaseModel):
    """A summary of the branch up to a message, that included."""

    text: Clean
    model: Clean
    created: Moment


class MessageShape(BaseModel):
    """A message; `parent` stands before it in the file, null for a first one."""

    id: Id
    parent: Id | None
    role: Role
    text: Clean
    status: Status = "complete"
    created: Moment
    model: Clean | None = None
    finish_reason: Annotated[Clean, Field(max_length=16)] | None = None
    usage: Figures | None = None
    error: Clean | None = None
    pinned: bool = False
    feedback: list[FeedbackShape] = []
    attachments: list[AttachmentShape] = []
    summary: SummaryShape | None = None


class ConversationShape(BaseModel):
    """A conversation with all its branches; `shown` is the message that ends the one shown."""

    id: Id
    title: Clean
    system: Clean = ""
    model: Clean = ""
    person: PersonShape = PersonShape()
    created: Moment
    updated: Moment
    shown: Id | None
    messages: list[MessageShape]


class FileShape(BaseModel):
    """The whole file."""

    format: Literal["chatbot"] = FORMAT
    version: Literal[1] = VERSION
    conversations: list[ConversationShape]
