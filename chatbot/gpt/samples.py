"""What a model learns from: texts, conversations whose replies are learned, and what people thought of replies."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["system", "user", "assistant"]

HELD_OUT_PERCENT = 5


@dataclass(frozen=True, slots=True)
class Text:
    """A text, all of it learned. `place` says where it stands, for a person."""

    text: str
    place: str

    @property
    def key(self) -> str:
        """Decides with what it is held out: its whole content."""
        return self.text

    @property
    def content(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. What the assistant says is learned where it `learns`."""

    role: Role
    content: str
    learns: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation. `ids` names the rows of the database it comes from, where it comes from there."""

    turns: tuple[Turn, ...]
    place: str
    ids: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Decides with what it is held out: what was said first. Forks and other replies to it fall on its side."""
        return next((turn.content for turn in self.turns if turn.role == "user"), self.content)

    @property
    def content(self) -> str:
        """What is said, without the system prompt, which many share."""
        return "\n".join(turn.content for turn in self.turns if turn.role != "system")

    def with_system(self, system: str) -> Dialogue:
        """The same under a system prompt, where it has none and there is one."""
        if not system or any(turn.role == "system" for turn in self.turns):
            return self
        return replace(self, turns=(Turn("system", system), *self.turns))

    @property
    def replies(self) -> list[str]:
        """The texts that are learned."""
        return [turn.content for turn in self.turns if turn.role == "assistant" and turn.learns]


@dataclass(frozen=True, slots=True)
class Preference:
    """What someone thought of replies to the same conversation, `turns`: of two, which was better; of one, whether it
    was good. The one that is not known is None."""

    turns: tuple[Turn, ...]
    good: str | None
    bad: str | None
    place: str
    ids: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """As of the conversation it stands in: it falls on the same side."""
        return Dialogue(self.turns, self.place).key

    def with_system(self, system: str) -> Preference:
        """The same under a system prompt, where it has none and there is one."""
        return replace(self, turns=Dialogue(self.turns, self.place).with_system(system).turns)

    @property
    def content(self) -> str:
        return "\0".join((Dialogue(self.turns, self.place).content, self.good or "", self.bad or ""))


Predicted = Text | Dialogue
"""Of which a model learns what comes next."""

Sample = Predicted | Preference


def normalised(text: str) -> str:
    """Without what makes no difference: case, width, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def is_held_out(sample: Sample) -> bool:
    """Whether a sample is for measuring only. It depends on its key alone, so it is the same in every run."""
    digest = hashlib.sha256(normalised(sample.key).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % 100 < HELD_OUT_PERCENT
