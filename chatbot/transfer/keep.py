"""Between the database and what a file holds."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from typing import Any

from chatbot.errors import UserError
from chatbot.store import Store
from chatbot.transfer.shape import (
    AttachmentShape,
    ConversationShape,
    FeedbackShape,
    MessageShape,
    PersonShape,
    SummaryShape,
)
from storage.archive import Archived, put_back
from storage.attachments import Attachment
from storage.errors import NotFoundError
from storage.feedback import Feedback
from storage.people import Person
from storage.records import Conversation, Message
from storage.summaries import Summary


async def gather(store: Store, conversation_id: str) -> ConversationShape:
    """All of a conversation. Of a reply that is still being written, what has come. Raises NotFoundError."""
    conversation = await store.conversations.get(conversation_id)
    said = await store.conversations.messages(conversation_id)
    people: dict[str, PersonShape] = {}

    async def person(person_id: str) -> PersonShape:
        if person_id not in people:
            found = await store.people.get(person_id)
            people[person_id] = PersonShape(platform=found.platform, external_id=found.external_id, name=found.name)
        return people[person_id]

    feedback: defaultdict[str, list[FeedbackShape]] = defaultdict(list)
    for given in await store.ratings.of_conversation(conversation_id):
        feedback[given.message_id].append(
            FeedbackShape.model_validate(
                {
                    "person": await person(given.person_id),
                    "value": given.value,
                    "note": given.note,
                    "created": given.created,
                    "updated": given.updated,
                }
            )
        )
    files: defaultdict[str, list[AttachmentShape]] = defaultdict(list)
    for file in await store.attachments.of_conversation(conversation_id):
        data: bytes | None
        try:
            data = base64.b64encode(await store.attachments.read(file.id))
        except NotFoundError:
            data = None
        fields = {name: getattr(file, name) for name in Attachment.__dataclass_fields__ if name != "message_id"}
        files[file.message_id].append(AttachmentShape.model_validate(fields | {"data": data}))
    summaries = {
        found.message_id: SummaryShape(text=found.text, model=found.model, created=found.created)
        for found in await store.summaries.of_conversation(conversation_id)
    }
    return ConversationShape(
        id=conversation.id,
        title=conversation.title,
        system=conversation.system,
        model=conversation.model,
        person=await person(conversation.person_id),
        created=conversation.created,
        updated=conversation.updated,
        shown=conversation.leaf_id,
        messages=[
            MessageShape(
                id=message.id,
                parent=message.parent_id,
                role=message.role,
                text=message.text,
                status="interrupted" if message.status == "streaming" else message.status,
                created=message.created,
                model=message.model,
                finish_reason=message.finish_reason,
                usage=message.usage,
                error=message.error,
                pinned=message.pinned,
                feedback=feedback[message.id],
                attachments=files[message.id],
                summary=summaries.get(message.id),
            )
            for message in said
        ],
    )


async def keep(store: Store, shape: ConversationShape) -> int:
    """Store what of a conversation is not there yet; returns how many messages that were.

    Raises:
        UserError: its messages are no tree, an attachment is not what it was, or something is there twice.
        StorageError: it cannot be stored.
    """
    _check(shape)
    people: dict[tuple[str, str], Person] = {}

    async def person(of: PersonShape) -> str:
        key = of.platform, of.external_id
        if key not in people:
            people[key] = await store.people.get_or_add(of.platform, of.external_id, of.name)
        return people[key].id

    data: dict[str, bytes] = {}
    archived = Archived(
        Conversation(
            shape.id,
            shape.title,
            shape.system,
            shape.model,
            shape.shown,
            shape.created,
            shape.updated,
            await person(shape.person),
        ),
        [
            Message(
                message.id,
                shape.id,
                message.parent,
                message.role,
                message.text,
                "interrupted" if message.status == "streaming" else message.status,
                message.created,
                message.model,
                message.finish_reason,
                message.usage,
                message.error,
                message.pinned,
            )
            for message in shape.messages
        ],
        [
            Feedback(message.id, await person(given.person), given.value, given.note, given.created, given.updated)
            for message in shape.messages
            for given in message.feedback
        ],
        [
            Attachment(file.id, message.id, file.name, file.media_type, file.sha256, file.size, file.details)
            for message in shape.messages
            for file in message.attachments
        ],
        [
            Summary(message.id, shape.id, message.summary.text, message.summary.model, message.summary.created)
            for message in shape.messages
            if message.summary is not None
        ],
    )
    for message in shape.messages:
        data |= {file.id: file.data for file in message.attachments if file.data is not None}
    return await put_back(store.database, archived, store.attachments, data)


def _check(shape: ConversationShape) -> None:
    seen: set[str] = set()
    files: set[str] = set()
    for message in shape.messages:
        if message.id in seen or (message.parent is not None and message.parent not in seen):
            raise UserError(f"The messages of the conversation '{shape.id}' are no tree ('{message.id}').")
        seen.add(message.id)
        givers = {(given.person.platform, given.person.external_id) for given in message.feedback}
        if len(givers) < len(message.feedback):
            raise UserError(f"The message '{message.id}' has feedback of the same person twice.")
        for file in message.attachments:
            if file.id in files:
                raise UserError(f"The conversation '{shape.id}' has the attachment '{file.id}' twice.")
            files.add(file.id)
            if file.data is not None and _differs(file):
                raise UserError(f"The attachment '{file.name}' in the file is damaged: its checksum is another.")
    if shape.shown is not None and shape.shown not in seen:
        raise UserError(f"The conversation '{shape.id}' shows a message that it does not have.")


def _differs(file: AttachmentShape) -> Any:
    assert file.data is not None
    return len(file.data) != file.size or hashlib.sha256(file.data).hexdigest() != file.sha256
