"""ShareGPT, and lines of chat messages as OpenAI takes them: conversations on one branch, without dates."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from chatbot.transfer.ids import derived_id
from chatbot.transfer.shape import ConversationShape, MessageShape
from storage.records import Role, title_of

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


def is_sharegpt(entry: Any) -> bool:
    return isinstance(entry, dict) and _said(entry) is not None


def _said(entry: dict[str, Any]) -> list[dict[str, Any]] | None:
    for name in ("conversations", "conversation", "messages"):
        said = entry.get(name)
        if isinstance(said, list) and all(isinstance(one, dict) for one in said):
            return said
    return None


def from_sharegpt(entry: dict[str, Any]) -> ConversationShape | None:
    """A conversation; None where nothing in it is text of either side. What tools said is left out.

    What is the same, word for word, is the same conversation.
    """
    key = derived_id("sharegpt", json.dumps(entry, sort_keys=True))
    now = datetime.now(UTC)
    system = str(entry.get("system") or "")
    messages: list[MessageShape] = []
    for number, one in enumerate(_said(entry) or []):
        who = str(one.get("from") or one.get("role") or "").lower()
        text = one.get("value", one.get("content"))
        if not isinstance(text, str) or not text.strip():
            continue
        if who in ("system", "developer"):
            system = system or text
        elif who in _ROLES:
            parent = messages[-1].id if messages else None
            messages.append(
                MessageShape(id=derived_id(key, str(number)), parent=parent, role=_ROLES[who], text=text, created=now)
            )
    if not messages:
        return None
    return ConversationShape(
        id=key[:12],
        title=str(entry.get("title") or "") or title_of(messages[0].text),
        system=system,
        created=now,
        updated=now,
        shown=messages[-1].id,
        messages=messages,
    )
