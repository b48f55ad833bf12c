"""What a turn tells a front end: a stream of these, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FinishReason = Literal["stop", "length", "stopped"]
"""`stop`: the model was done; `length`: the room for the reply ran out; `stopped`: the person stopped it."""


@dataclass(frozen=True, slots=True)
class Started:
    """The message is committed and a reply has been opened.

    With `branched`, another branch is shown from now on: the message, the reply, or both stand beside others.
    """

    conversation: str
    message: str
    reply: str
    branched: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageReady:
    """A picture has come, and is kept: a PNG at `path`, the attachment `attachment` of the reply."""

    attachment: str
    path: Path
    prompt: str
    seed: int
    style: str
    model: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the reply cost. Tokens are the model's own; times are seconds."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    context_length: int
    load_s: float
    first_token_s: float
    decode_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What goes on while the person waits; `fraction` (0 to 1) where it is known."""

    text: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """The answer of a command, to be shown and to stay."""

    text: str


@dataclass(frozen=True, slots=True)
class FileReady:
    """A file that a command made for the person, to be given to them."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ConversationChanged:
    """A command opened, changed or deleted a conversation; `conversation` is the one to show, None a new one."""

    conversation: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is complete, or as complete as it will be."""

    reply: str
    text: str
    reason: FinishReason
    model: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn failed; `text` says why in a sentence. What had come of a reply is kept."""

    text: str


Event = (
    Started | TextDelta | ImageReady | Usage | Progress | Notice | FileReady | ConversationChanged | Finished | Failed
)
