"""The rolling summary: what no longer fits into a model's context, told in short by the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from chatbot import text as plain
from chatbot.context import Turn, turns_of
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions, Responder
from chatbot.store import Store
from storage.summaries import Summary

FULL = 0.75
"""How much of the context may be used before older turns are told in short."""

LEFT = 0.5
"""How much of it is used afterwards, at most: the next summary is some turns away, and until then what the model has
read stays in its cache."""

NOTE_TOKENS = 192
"""Of what is noted of one piece of a conversation."""

GIST_TOKENS = 64
"""Of what the replies in it came to."""

PAGE = 512
"""Messages of a branch that are looked at: more than a context holds, mostly."""

MOST_CHARACTERS = 200
"""Of one line: a model that repeats itself does so in one."""

GIST = "The assistant: "

# A small model that is shown both sides notes nothing of use (no fact of ten: SmolLM2-135M), and what it is to write
# anew it forgets. From the person's words alone it notes all ten; so notes are added to, and replies asked for apart.
_NOTE = (
    "The user said:\n{said}\n\nRewrite this as short notes about the user, one fact a line, in the same language. "
    "Leave out questions."
)
_GIST = "The assistant said:\n{said}\n\nSay in one short sentence what that was about, in the same language."


async def summarise(store: Store, leaf_id: str, system: str, responder: Responder, budget: int) -> int:
    """Tell the oldest turns of the branch up to `leaf_id` in short, where what is not told yet fills `FULL` of
    `budget` tokens, so that it then fills no more than `LEFT`; returns how many turns that were.

    Cancelling it keeps what was made so far.

    Raises:
        ModelError: the model failed.
        StorageError: it cannot be kept.
    """
    path = await store.conversations.path(leaf_id, PAGE)
    turns = turns_of(path)
    done = max((number for number, turn in enumerate(turns) if turn.summary is not None), default=-1)
    notes, previous = "", None
    if done >= 0:
        notes, previous = turns[done].summary or "", turns[done].ids[-1]
    waiting = turns[done + 1 :]
    room = int(LEFT * budget) - _room(responder)
    folded = 0
    if await _size(waiting, system, responder) + _room(responder) <= FULL * budget:
        return 0
    fold = await _too_many(waiting, system, responder, room)
    while folded < fold:
        chunk = await _chunk(waiting[folded:fold], responder)
        added = await _notes(responder, chunk)
        if not added:
            return folded
        notes = await _shortened([*notes.splitlines(), *added], responder)
        end = chunk[-1].ids[-1]
        here = path[0].conversation_id
        summary = Summary(end, here, notes, responder.name, datetime.now(UTC))
        made_from = [message_id for turn in chunk for message_id in turn.ids]
        if not await store.summaries.add(summary, made_from, previous):
            return folded
        previous = end
        folded += len(chunk)
    return folded


async def _too_many(turns: Sequence[Turn], system: str, responder: Responder, room: int) -> int:
    """How many of the oldest turns must go for the others to fit into `room` tokens; the last one stays."""
    first, last = 0, max(0, len(turns) - 1)
    while first < last:
        middle = (first + last) // 2
        if await _size(turns[middle:], system, responder) <= room:
            last = middle
        else:
            first = middle + 1
    return first


async def _size(turns: Sequence[Turn], system: str, responder: Responder) -> int:
    messages = [ChatMessage("system", system), *(message for turn in turns for message in turn.messages)]
    return await responder.count_tokens(messages)


async def _chunk(turns: Sequence[Turn], responder: Responder) -> Sequence[Turn]:
    """As many of `turns` as can be read at once, at least one."""
    room = responder.context_length - 2 * min(NOTE_TOKENS, responder.context_length // 8)
    few, many = 1, len(turns)
    while few < many:
        middle = (few + many + 1) // 2
        prompts = [_prompt(_NOTE, _said(turns[:middle], "user")), _prompt(_GIST, _said(turns[:middle], "assistant"))]
        if max([await responder.count_tokens(prompt) for prompt in prompts]) <= room:
            few = middle
        else:
            many = middle - 1
    return turns[:few]


async def _notes(responder: Responder, turns: Sequence[Turn]) -> list[str]:
    """Lines that tell what the person said in `turns`, and one what the replies were about."""
    noted = await _ask(responder, _NOTE, _said(turns, "user"), NOTE_TOKENS)
    gist = await _ask(responder, _GIST, _said(turns, "assistant"), GIST_TOKENS)
    lines = [line.strip()[:MOST_CHARACTERS] for line in noted.splitlines()]
    facts = [line for line in lines if line and not line.endswith(("?", "？")) and not _is_echo(line)]
    return facts + ([GIST + " ".join(gist.split())] if gist else [])


def _is_echo(line: str) -> bool:
    """Whether it is of the task rather than of what was said, as a small model likes to say once more."""
    return "The user said:" in line or line[:20] in _NOTE


async def _shortened(lines: Sequence[str], responder: Responder) -> str:
    """Notes without what stands there twice, and no longer than there is room for: what replies were about goes
    first, then what is oldest."""
    kept = list(dict.fromkeys(lines))
    while len(kept) > 1:
        notes = "\n".join(kept)
        if await responder.count_tokens([ChatMessage("user", notes)]) <= _room(responder):
            break
        kept.remove(next((line for line in kept if line.startswith(GIST)), kept[0]))
    return "\n".join(kept)


def _room(responder: Responder) -> int:
    """Tokens for all notes."""
    return responder.context_length // 5


def _said(turns: Sequence[Turn], role: str) -> str:
    return "\n".join(f"- {message.content}" for turn in turns for message in turn.messages if message.role == role)


def _prompt(task: str, said: str) -> list[ChatMessage]:
    return [ChatMessage("user", task.format(said=said))]


async def _ask(responder: Responder, task: str, said: str, max_tokens: int) -> str:
    max_tokens = min(max_tokens, responder.context_length // 8)
    while await responder.count_tokens(_prompt(task, said)) > responder.context_length - max_tokens:
        third = len(said) // 3  # one turn that is too long: its middle goes
        said = f"{said[:third]}\n[…]\n{said[-third:]}"
    options = GenerationOptions(max_tokens=max_tokens, temperature=0.0, followed=False)
    async with aclosing(responder.reply(_prompt(task, said), options)) as reply:
        pieces = [piece async for piece in reply if not isinstance(piece, Completion)]
    return plain.clean("".join(pieces)).strip()
