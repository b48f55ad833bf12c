"""What a file of conversations holds. Its JSON is stable: keys may be added, none goes or changes its meaning."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Base64Encoder, BaseModel, EncodedBytes, Field, StringConstraints

from chatbot.text import clean
from storage.conversations import Role, Status
from storage.people import LOCAL

FORMAT: Literal["chatbot"] = "chatbot"
VERSION: Literal[1] = 1


class OneLine(Base64Encoder):
    """Base64 without line breaks."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)


Clean = Annotated[str, AfterValidator(clean)]
Base64 = Annotated[bytes, EncodedBytes(encoder=OneLine)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
"""An id may become the name of a file."""


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
    created: AwareDatetime
    updated: AwareDatetime


class AttachmentShape(BaseModel):
    """A file of a message; `data` is its bytes in Base64, null where they were lost."""

    id: Id
    name: Clean
    media_type: Clean
    sha256: str
    size: int
    details: dict[str, Any] = {}
    data: Base64 | None


class SummaryShape(BaseModel):
    """A summary of the branch up to a message, that included."""

    text: Clean
    model: Clean
    created: AwareDatetime


class MessageShape(BaseModel):
    """A message; `parent` stands before it in the file, null for a first one."""

    id: Id
    parent: Id | None
    role: Role
    text: Clean
    status: Status = "complete"
    created: AwareDatetime
    model: Clean | None = None
    finish_reason: Annotated[Clean, Field(max_length=16)] | None = None
    usage: dict[str, Any] | None = None
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
    created: AwareDatetime
    updated: AwareDatetime
    shown: Id | None
    messages: list[MessageShape]


class FileShape(BaseModel):
    """The whole file."""

    format: Literal["chatbot"] = FORMAT
    version: Literal[1] = VERSION
    conversations: list[ConversationShape]
