"""Which messages of a branch a model is given: the system prompt, and as many whole turns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.engines.base import ChatMessage, Responder
from chatbot.errors import MessageError
from storage.conversations import Conversations, Message

FIRST_PAGE = 32


@dataclass(frozen=True, slots=True)
class Context:
    """What is sent. `prompt_tokens` counts all of it; `reply_tokens` is the room for the reply."""

    messages: tuple[ChatMessage, ...]
    prompt_tokens: int
    reply_tokens: int


async def build_context(
    conversations: Conversations, leaf_id: str, system: str, responder: Responder, max_tokens: int
) -> Context:
    """Fit the branch that ends in the person's message `leaf_id` into the model's context.

    The system prompt always stays, then as many whole turns as fit, the newest first, in the model's real
    tokens, less the room for a reply: `max_tokens`, or half the context where that is less.

    Raises:
        MessageError: the newest message alone does not fit.
    """
    reply_tokens = min(max_tokens, responder.context_length // 2)
    budget = responder.context_length - reply_tokens
    prefix = [ChatMessage("system", system)] if system else []

    async def size(turns: Sequence[Sequence[ChatMessage]]) -> int:
        return await responder.count_tokens([*prefix, *(message for turn in turns for message in turn)])

    limit = FIRST_PAGE  # read no more of a long branch than may fit
    while True:
        path = await conversations.path(leaf_id, limit)
        turns = _turns(path)
        tokens = await size(turns)
        if tokens > budget or len(path) < limit:
            break
        limit *= 4

    if tokens > budget:
        dropped, enough = 0, len(turns) - 1  # between these two, the fewest oldest turns to leave out
        while dropped < enough:
            middle = (dropped + enough) // 2
            if await size(turns[middle:]) <= budget:
                enough = middle
            else:
                dropped = middle + 1
        turns = turns[enough:]
        tokens = await size(turns)
    if tokens > budget:
        raise MessageError(
            f"The message makes {tokens:,} tokens; {responder.name} takes {budget:,} besides its reply. "
            "Send a shorter one, or choose a model with a longer context."
        )
    messages = (*prefix, *(message for turn in turns for message in turn))
    return Context(messages, tokens, min(max_tokens, responder.context_length - tokens))


def _turns(path: Sequence[Message]) -> list[list[ChatMessage]]:
    """The branch as turns: what the person said, and the reply to it.

    A turn that failed without a word is left out, since the person was told so. Where a reply was stopped or
    cut off before its first word, what was said next joins what was said before: templates want the roles
    to alternate.
    """
    turns: list[list[ChatMessage]] = []
    said: list[str] = []
    for message in path:
        if message.role == "user":
            said.append(message.text)
        elif message.text:
            if said:  # a page may begin with a reply, whose turn is then not whole
                turns.append([ChatMessage("user", "\n\n".join(said)), ChatMessage("assistant", message.text)])
            said = []
        elif message.status == "failed":
            said = said[:-1]
    if said:
        turns.append([ChatMessage("user", "\n\n".join(said))])
    return turns
