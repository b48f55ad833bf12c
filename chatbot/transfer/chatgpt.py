"""ChatGPT's export: `conversations.json`, in which every conversation is a mapping of nodes to their parents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from chatbot.transfer.ids import derived_id
from chatbot.transfer.shape import EARLIEST, LATEST, ConversationShape, MessageShape
from storage.records import Role, title_of


def is_chatgpt(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("mapping"), dict)


def from_chatgpt(entry: dict[str, Any]) -> ConversationShape | None:
    """A conversation with its branches; None where nothing of it is text that someone said.

    What a tool was told or said, thoughts, and what ChatGPT hides from its users is left out: what followed follows
    what stood before. A visible system message becomes the system prompt.
    """
    mapping: dict[str, Any] = {key: node for key, node in entry["mapping"].items() if isinstance(node, dict)}
    key = _key(entry, mapping)
    created = _moment(entry.get("create_time")) or datetime.now(UTC)
    system = ""
    kept: dict[str, str | None] = {}
    """By node, the message that it is, or the one before it where it was left out."""
    messages: list[MessageShape] = []
    for node_id, parent_id in _in_order(mapping):
        before = kept.get(parent_id or "")
        kept[node_id] = before
        message = mapping[node_id].get("message")
        if not isinstance(message, dict):
            continue
        role = _within(message, "author").get("role")
        text = _text(message).strip()
        if role == "system" and not system and text:
            system = text
        if role not in ("user", "assistant") or not text:
            continue
        said_by: Role = "user" if role == "user" else "assistant"
        kept[node_id] = derived_id("chatgpt", key, node_id)
        messages.append(
            MessageShape(
                id=derived_id("chatgpt", key, node_id),
                parent=before,
                role=said_by,
                text=text,
                status="complete" if message.get("status") != "in_progress" else "interrupted",
                created=_moment(message.get("create_time")) or created,
                model=str(_within(message, "metadata").get("model_slug") or "chatgpt")
                if said_by == "assistant"
                else None,
            )
        )
    if not messages:
        return None
    return ConversationShape(
        id=derived_id("chatgpt", key)[:12],
        title=str(entry.get("title") or "") or title_of(messages[0].text),
        system=system,
        created=created,
        updated=_moment(entry.get("update_time")) or created,
        shown=kept.get(str(entry.get("current_node"))) or messages[-1].id,
        messages=messages,
    )


def _in_order(mapping: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Every node with its parent, parents first and children in their order; a ring is entered at its first node."""
    children: dict[str, list[str]] = {}
    roots = []
    for node_id, node in mapping.items():
        parent_id = node.get("parent")
        if isinstance(parent_id, str) and parent_id in mapping and parent_id != node_id:
            children.setdefault(parent_id, []).append(node_id)
        else:
            roots.append(node_id)
    for parent_id, below in children.items():
        listed = mapping[parent_id].get("children")
        listed = [str(child) for child in listed] if isinstance(listed, list) else []
        place = {child: number for number, child in enumerate(listed)}
        below.sort(key=lambda child: place.get(child, len(place)))
    entered: set[str] = set()
    for begin in [*roots, *mapping]:
        waiting: list[tuple[str, str | None]] = [(begin, None)]
        while waiting:
            node_id, parent = waiting.pop()
            if node_id not in entered:
                entered.add(node_id)
                yield node_id, parent
                waiting += [(child, node_id) for child in reversed(children.get(node_id, []))]


def _key(entry: dict[str, Any], mapping: dict[str, Any]) -> str:
    """What tells a conversation from others: its id, or else how it began, which stays as it grows."""
    named = entry.get("conversation_id") or entry.get("id")
    if named:
        return str(named)
    said = (_within(node, "message") for node in mapping.values())
    return json.dumps([entry.get("create_time"), next((one for one in said if _text(one).strip()), None)])


def _text(message: dict[str, Any]) -> str:
    """What a person saw of it."""
    hidden = _within(message, "metadata").get("is_visually_hidden_from_conversation")
    content = _within(message, "content")
    if hidden or message.get("recipient", "all") != "all":
        return ""
    kind = content.get("content_type", "text")
    if kind == "code":
        code = str(content.get("text") or "")
        return f"```\n{code}\n```" if code.strip() else ""
    if kind not in ("text", "multimodal_text"):
        return ""
    parts = content.get("parts")
    return "\n\n".join(filter(None, (_part(part) for part in (parts if isinstance(parts, list) else []))))


def _within(message: dict[str, Any], name: str) -> dict[str, Any]:
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part.strip("\n")
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):  # what was spoken, written down
            return str(part["text"])
        if part.get("content_type") == "image_asset_pointer":
            return "[picture]"
    return ""


def _moment(seconds: Any) -> datetime | None:
    try:
        moment = datetime.fromtimestamp(float(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment if EARLIEST <= moment < LATEST else None
