"""What may be learned from: what was allowed, each thing once, without personal data, some of it held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from chatbot.gpt.duplicates import Duplicates
from chatbot.gpt.redaction import redacted
from chatbot.gpt.samples import Dialogue, Preference, Sample, Text, Turn, is_held_out
from chatbot.store import Store
from storage.records import Message


@dataclass(slots=True)
class Report:
    """What became of what was read. `left_out` and `redacted` count by reason and kind."""

    read: int = 0
    learned: int = 0
    held_out: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """For a person."""
        parts = [f"{self.read:,} read", f"{self.learned:,} to learn from", f"{self.held_out:,} held out"]
        said = [", ".join(parts) + "."]
        if self.left_out:
            said.append("Left out: " + _counted(self.left_out) + ".")
        if self.redacted:
            said.append("Redacted: " + _counted(self.redacted) + ".")
        return said

    def as_json(self) -> dict[str, object]:
        return {
            "read": self.read,
            "learned": self.learned,
            "held_out": self.held_out,
            "left_out": dict(self.left_out),
            "redacted": dict(self.redacted),
        }


def clean(samples: Iterable[Sample], report: Report) -> Iterator[tuple[Sample, bool]]:
    """Each sample once, redacted, and whether it is held out."""
    seen = Duplicates()
    for sample in samples:
        report.read += 1
        if not sample.content.strip():
            report.left_out["empty"] += 1
            continue
        held_out = is_held_out(sample)  # before redaction, whose rules may change: the side never does
        sample = _redacted(sample, report.redacted)
        if isinstance(sample, Preference) and sample.good == sample.bad:
            report.left_out["pairs that differ in personal data alone"] += 1
            continue
        found = seen.look(sample.content)
        if found == "same" or (found == "near" and not isinstance(sample, Preference)):  # near is what those are
            report.left_out["duplicates" if found == "same" else "near duplicates"] += 1
            continue
        if held_out:
            report.held_out += 1
        else:
            report.learned += 1
        yield sample, held_out


async def own_conversations(store: Store, report: Report, *, since: datetime | None = None) -> list[Dialogue]:
    """The conversations of people who allowed it, the branch shown of each; of several people, of whom all did.

    Replies that someone found bad, and those that are not complete, are not learned. What was forgotten is not there
    any more. `since` leaves out conversations that were last spoken in before then.
    """
    allowed, withheld = await store.people.who_allow_learning(), await store.people.messages_withheld()
    found: list[Dialogue] = []
    for conversation in await store.conversations.list():
        if conversation.person_id not in allowed:
            report.left_out["conversations of people who did not allow it"] += 1
            continue
        if since is not None and conversation.updated < since:
            continue
        said = await store.conversations.path(conversation.leaf_id, person=conversation.person_id)
        ids = tuple(message.id for message in said)
        if not withheld.isdisjoint(ids):
            report.left_out["conversations in which someone spoke who did not allow it"] += 1
            continue
        turns = tuple(_turn(message) for message in said if message.text.strip())
        if not any(turn.role == "assistant" and turn.learns for turn in turns):
            report.left_out["conversations without a reply to learn"] += 1
            continue
        system = (Turn("system", conversation.system),) if conversation.system.strip() else ()
        found.append(Dialogue((*system, *turns), f"conversation {conversation.id}", ids))
    return sorted(found, key=lambda dialogue: dialogue.ids)


def _turn(message: Message) -> Turn:
    return Turn(message.role, message.text, learns=message.status == "complete" and message.rating >= 0)


def _redacted(sample: Sample, counts: Counter[str]) -> Sample:
    if isinstance(sample, Text):
        return replace(sample, text=redacted(sample.text, counts))
    turns = tuple(replace(turn, content=redacted(turn.content, counts)) for turn in sample.turns)
    if isinstance(sample, Preference):
        good, bad = (reply and redacted(reply, counts) for reply in (sample.good, sample.bad))
        return replace(sample, turns=turns, good=good, bad=bad)
    return replace(sample, turns=turns)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
