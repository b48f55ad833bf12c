"""Conversations as text to carry away."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

from chatbot.errors import UserError
from chatbot.store import Store
from chatbot.transfer.keep import gather
from chatbot.transfer.shape import FORMAT, VERSION
from storage.records import Conversation, Message

Format = Literal["json", "markdown", "jsonl"]
FORMATS: tuple[Format, ...] = ("json", "markdown", "jsonl")


async def export(store: Store, conversations: Sequence[Conversation], format: Format) -> AsyncIterator[str]:
    """The text of a file that holds `conversations`, piece by piece.

    `json` is everything there is of them, and can be imported; `markdown` and `jsonl` are the branch shown, the
    latter as `{"messages": [{"role", "content"}]}`, a line a conversation.

    Raises NotFoundError where one is gone meanwhile.
    """
    if format == "json":
        yield f'{{"format": "{FORMAT}", "version": {VERSION}, "conversations": ['
        for number, conversation in enumerate(conversations):
            yield ",\n" if number else "\n"
            yield (await gather(store, conversation.id)).model_dump_json()
        yield "\n]}\n"
        return
    for number, conversation in enumerate(conversations):
        said = await store.conversations.path(conversation.leaf_id)
        if format == "jsonl":
            if line := _line(conversation, said):
                yield line
        else:
            yield "\n" * bool(number) + await _markdown(store, conversation, said)


async def export_to(store: Store, conversations: Sequence[Conversation], format: Format, target: Path) -> None:
    """The same into a file, which is there whole or as it was before.

    Raises:
        UserError: it cannot be written.
        NotFoundError: a conversation is gone meanwhile.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            async for piece in export(store, conversations, format):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)


def _line(conversation: Conversation, said: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.text} for message in said if message.text]
    if not turns:
        return ""
    system = [{"role": "system", "content": conversation.system}] if conversation.system else []
    return json.dumps({"messages": [*system, *turns]}, ensure_ascii=False) + "\n"


async def _markdown(store: Store, conversation: Conversation, said: Sequence[Message]) -> str:
    lines = [f"# {conversation.title or 'Conversation'}", ""]
    if conversation.system:
        lines += [*(f"> {line}" for line in conversation.system.splitlines()), ""]
    files = await store.attachments.of_conversation(conversation.id)
    for message in said:
        who = "You" if message.role == "user" else message.model or "Reply"
        which = f", {message.position} of {message.siblings}" if message.siblings > 1 else ""
        mark = "" if message.status == "complete" else f", {message.status}"
        lines += [f"## {who} ({message.created.astimezone():%Y-%m-%d %H:%M}{which}{mark})", ""]
        lines += [message.text or message.error or "", ""]
        lines += [f"- {file.name} ({file.media_type})" for file in files if file.message_id == message.id]
    return "\n".join(lines).rstrip() + "\n"
