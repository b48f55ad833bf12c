"""What conversations are made of."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from storage.people import LOCAL

Role = Literal["user", "assistant"]
Status = Literal["streaming", "complete", "interrupted", "stopped", "failed"]
"""`streaming`: its writer is alive; `interrupted`: its writer died; `stopped`: the person stopped it."""

TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Conversation:
    """`model` answers in it, NAME[@VERSION]; empty: the one in use. `leaf_id` ends the branch that is shown."""

    id: str
    title: str
    system: str
    model: str
    leaf_id: str | None
    created: datetime
    updated: datetime
    person_id: str = LOCAL

    @classmethod
    def new(cls, system: str, title: str = "", model: str = "", person: str = LOCAL) -> Conversation:
        """One that is stored nowhere yet."""
        now = datetime.now(UTC)
        return cls(secrets.token_hex(6), title, system, model, None, now, now, person)


@dataclass(frozen=True, slots=True)
class Message:
    """`usage` holds the token counts and timings of a reply; `error` says why one failed; what is `pinned` is always
    sent, word for word.

    On a branch (`Conversations.path`) it is number `position` of `siblings` that answer the same message, the oldest
    first; `rating` is what a person thinks of it (1 or -1; 0: has not said) and `note` why, `summary` tells all of
    the branch up to it in short, where that was made, and it has `attached` files.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    status: Status
    created: datetime
    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None
    pinned: bool = False
    position: int = 1
    siblings: int = 1
    rating: int = 0
    summary: str | None = None
    note: str = ""
    attached: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person said, the reply opened to it, and the conversation as it was before.

    The text of a reply that goes on from a cut one is what had come of that.
    """

    said: Message
    reply: Message
    conversation: Conversation


def title_of(text: str) -> str:
    """The title that a conversation gets from what is said in it first."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"
