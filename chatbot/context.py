"""Which messages of a branch a model is given: the system prompt, and as many whole turns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.engines.base import ChatMessage, Responder
from chatbot.errors import MessageError
from chatbot.store import Store
from storage.records import Message

FIRST_PAGE = 32


@dataclass(frozen=True, slots=True)
class Turn:
    """What the person said, and the reply to it; `ids` of the messages it is made of. `summary` tells all of the
    branch up to its end."""

    messages: list[ChatMessage]
    ids: list[str]
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What is sent. `prompt_tokens` counts all of it; `reply_tokens` is the room for the reply.

    `summary` stands in it for the messages up to `summarised`; the pinned messages `pinned` (ids) stand in it apart,
    since they are older than what is sent as it was said. `budget` is the most tokens that all of it may have.
    """

    messages: tuple[ChatMessage, ...]
    prompt_tokens: int
    reply_tokens: int
    budget: int
    summary: str | None = None
    summarised: str | None = None
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around the turns."""

    responder: Responder
    system: str
    pins: Sequence[Message]
    suffix: list[ChatMessage]

    def older_pins(self, turns: Sequence[Turn]) -> list[Message]:
        within = {message_id for turn in turns for message_id in turn.ids}
        return [pin for pin in self.pins if pin.id not in within]

    def around(self, turns: Sequence[Turn], summary: str | None) -> tuple[ChatMessage, ...]:
        parts = [self.system] if self.system else []
        if summary is not None:
            parts.append(f"Summary of what was said before:\n{summary}")
        if pins := self.older_pins(turns):
            said = "\n".join(f"{'User' if pin.role == 'user' else 'Assistant'}: {pin.text}" for pin in pins)
            parts.append(f"Said before, word for word:\n{said}")
        system = [ChatMessage("system", "\n\n".join(parts))] if parts else []
        return (*system, *(message for turn in turns for message in turn.messages), *self.suffix)

    async def size(self, turns: Sequence[Turn], summary: str | None) -> int:
        return await self.responder.count_tokens(self.around(turns, summary))

    async def most_that_fit(self, turns: Sequence[Turn], summary: str | None, budget: int) -> Sequence[Turn]:
        """As many of the newest turns as fit; the last one stays in any case."""
        dropped, enough = 0, len(turns) - 1  # between these two, the fewest oldest turns to leave out
        while dropped < enough:
            middle = (dropped + enough) // 2
            if await self.size(turns[middle:], summary) <= budget:
                enough = middle
            else:
                dropped = middle + 1
        return turns[enough:]


async def build_context(
    store: Store,
    leaf_id: str | None,
    system: str,
    responder: Responder,
    max_tokens: int,
    *,
    said: str = "",
    begun: str = "",
    first: Message | None = None,
) -> Context:
    """Fit the branch that ends in `leaf_id` into the model's context.

    The system prompt and what is pinned always stay, then as many whole turns as fit, the newest first, in the
    model's real tokens, less the room for a reply: `max_tokens`, or half the context where that is less. Where not
    all turns fit, a summary stands for the oldest: the one that leaves the most turns as they were said. Where there
    is none, they are left out.

    Args:
        store: what was said.
        leaf_id: the person's message that is to be answered.
        system: the system prompt.
        responder: counts.
        max_tokens: of the reply.
        said: a message that is stored nowhere, after `leaf_id`.
        begun: a reply that has begun, to be gone on with; it comes last.
        first: the message `leaf_id`, where it is known and none stands before it: nothing is read then.

    Raises:
        MessageError: the newest message alone does not fit.
    """
    reply_tokens = min(max_tokens, responder.context_length // 2)
    budget = responder.context_length - reply_tokens
    limit = FIRST_PAGE  # read no more of a long branch than may fit
    pins: Sequence[Message] = []
    path: Sequence[Message] = [] if first is None else [first]
    if leaf_id is not None and first is None:
        pins, path = await store.conversations.pinned_and_path(leaf_id, limit)
    frame = _Frame(responder, system, pins, [ChatMessage("assistant", begun)] if begun else [])
    while True:
        turns = turns_of(path, said)
        tokens = await frame.size(turns, None)
        if tokens > budget or len(path) < limit:
            break
        limit *= 4
        path = await store.conversations.path(leaf_id, limit)

    chosen: Sequence[Turn] = turns
    summary: str | None = None
    summarised: str | None = None
    if tokens > budget:
        places = [number for number, turn in enumerate(turns[:-1]) if turn.summary is not None]
        for place in places:
            summary, summarised, chosen = turns[place].summary, turns[place].ids[-1], turns[place + 1 :]
            if (tokens := await frame.size(chosen, summary)) <= budget:
                break
        else:
            if not places and leaf_id is not None and (found := await store.summaries.newest(leaf_id)) is not None:
                summarised, summary = found
            chosen = await frame.most_that_fit(chosen, summary, budget)
            if (tokens := await frame.size(chosen, summary)) > budget:
                summary = summarised = None
                tokens = await frame.size(chosen, None)
    older = frame.older_pins(chosen)
    if tokens > budget:
        raise MessageError(
            f"The message makes {tokens:,} tokens{', with what is pinned' if older else ''}; {responder.name} takes "
            f"{budget:,} besides its reply. Send a shorter one, or choose a model with a longer context."
        )
    return Context(
        frame.around(chosen, summary),
        tokens,
        min(max_tokens, responder.context_length - tokens),
        budget,
        summary,
        summarised,
        tuple(pin.id for pin in older),
    )


def turns_of(path: Sequence[Message], newest: str = "") -> list[Turn]:
    """The branch as turns: what the person said, and the reply to it; `newest` is said after it.

    A turn that failed without a word is left out, since the person was told so. Where a reply was stopped or
    cut off before its first word, what was said next joins what was said before: templates want the roles
    to alternate.
    """
    turns: list[Turn] = []
    said: list[Message] = []
    for message in path:
        if message.role == "user":
            said.append(message)
        elif message.text:
            if said:
                asked = ChatMessage("user", "\n\n".join(one.text for one in said))
                ids = [*(one.id for one in said), message.id]
                turns.append(Turn([asked, ChatMessage("assistant", message.text)], ids, message.summary))
            elif turns:  # what stood between two replies was deleted
                asked, answer = turns[-1].messages
                whole = ChatMessage("assistant", f"{answer.content}\n\n{message.text}")
                turns[-1] = Turn([asked, whole], [*turns[-1].ids, message.id], message.summary)
            said = []  # a page may begin with a reply, whose turn is then not whole
        elif message.status == "failed":
            said = said[:-1]
    texts = [one.text for one in said] + ([newest] if newest else [])
    if texts:
        turns.append(Turn([ChatMessage("user", "\n\n".join(texts))], [one.id for one in said]))
    return turns


def shown(context: Context) -> str:
    """What is sent, for a person to read."""
    parts = [f"[{message.role}]\n{message.content}" for message in context.messages]
    parts.append(
        f"[{context.prompt_tokens:,} tokens of {context.budget:,}, and {context.reply_tokens:,} for the reply]"
    )
    return "\n\n".join(parts)
