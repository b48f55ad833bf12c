"""What people thought of replies: by thumbs, and by asking for another reply and keeping one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from chatbot.gpt.samples import Preference, Turn
from chatbot.store import Store
from storage.records import Conversation, Message

Sides = TypeVar("Sides")

FEWEST_THUMBS = 8
"""Of each side. With one side alone, a model learns to say more, or less, of everything."""

MOST_AGAINST_ONE = 4
"""How many times as many thumbs of the one side are learned as there are of the other."""


async def own_preferences(store: Store, *, since: datetime | None = None) -> list[Preference]:
    """What those who allowed it thought of the replies in their conversations, where all who spoke allowed it.

    Of replies to the same message, that with the better thumbs is better; where these are alike, the one that is
    shown, which someone went back to or went on with, is better than each of the others. A reply with a thumb is good
    or bad by itself, too. `since` leaves out conversations that were last spoken in before then.
    """
    allowed, withheld = await store.people.who_allow_learning(), await store.people.messages_withheld()
    compared = await store.ratings.compared()
    found: list[Preference] = []
    for conversation in await store.conversations.list():
        if conversation.id not in compared or conversation.person_id not in allowed:
            continue
        if since is not None and conversation.updated < since:
            continue
        thumbs: Counter[str] = Counter()
        for one in await store.ratings.of_conversation(conversation.id):
            if one.person_id in allowed:
                thumbs[one.message_id] += one.value
        of_one = _of_one(conversation, await store.conversations.messages(conversation.id), thumbs)
        found += (one for one in of_one if withheld.isdisjoint(one.ids))
    return sorted(found, key=lambda one: one.ids)


def _of_one(conversation: Conversation, said: Sequence[Message], thumbs: Counter[str]) -> Iterator[Preference]:
    """The preferences of a conversation, all of whose messages are `said`."""
    place = f"conversation {conversation.id}"
    system = (Turn("system", conversation.system),) if conversation.system.strip() else ()
    known = {message.id: message for message in said}
    shown = {message.id for message in _line(conversation.leaf_id, known)}
    replies: defaultdict[str, list[Message]] = defaultdict(list)
    for message in said:
        if message.role == "assistant" and message.status == "complete" and message.text.strip():
            replies[message.parent_id or ""].append(message)
    for asked, some in replies.items():
        before = [message for message in _line(asked, known) if message.text.strip()]
        if not before or before[-1].role != "user":  # of a picture alone there is no text
            continue
        turns = (*system, *(Turn(message.role, message.text, learns=False) for message in before))
        ids = tuple(message.id for message in before)
        for reply in some:
            if thumbs[reply.id]:
                good, bad = (reply.text, None) if thumbs[reply.id] > 0 else (None, reply.text)
                yield Preference(turns, good, bad, place, (*ids, reply.id))
        kept = next((reply for reply in some if reply.id in shown), None)
        ranked = sorted(some, key=lambda reply: (thumbs[reply.id], reply is kept), reverse=True)
        best = ranked[0]
        for other in ranked[1:]:
            better = thumbs[best.id] > thumbs[other.id] or (best is kept and thumbs[best.id] >= 0)
            if better and best.text != other.text:
                yield Preference(turns, best.text, other.text, place, (*ids, best.id, other.id))


def _line(last: str | None, known: dict[str, Message]) -> list[Message]:
    """The messages up to one, the oldest first; none where something is missing between."""
    line: list[Message] = []
    while last is not None:
        message = known.get(last)
        if message is None:
            return []
        line.append(message)
        last = message.parent_id
    return line[::-1]


def balanced(found: Mapping[Preference, Sides], left_out: Counter[str]) -> dict[Preference, Sides]:
    """Those that may be learned: no thumbs of so few, nor so many of one side, that they teach something else.

    `left_out` is told how many are not.
    """
    sides = {True: 0, False: 0}
    for one in found:
        if not is_pair(one):
            sides[one.good is not None] += 1
    fewer = min(sides.values())
    most = MOST_AGAINST_ONE * fewer if fewer >= FEWEST_THUMBS else 0
    seen: Counter[bool] = Counter()
    kept: dict[Preference, Sides] = {}
    for one, sides_of in found.items():
        if not is_pair(one):
            side = one.good is not None
            # Spread over all, so that neither the oldest nor the newest alone are left.
            before, now = (number * most // max(most, sides[side]) for number in (seen[side], seen[side] + 1))
            seen[side] += 1
            if before == now:
                left_out["thumbs that are too many of one side" if most else "thumbs that are too few"] += 1
                continue
        kept[one] = sides_of
    return kept


def is_pair(one: Preference) -> bool:
    """Whether it says which of two replies is better."""
    return one.good is not None and one.bad is not None


def counted(found: Iterable[Preference]) -> Counter[str]:
    """How many there are of each kind: `pairs`, `good`, `bad`."""
    return Counter("pairs" if is_pair(one) else "good" if one.good is not None else "bad" for one in found)
