"""What a gate finds: conditions, each passed or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: what was measured of the model `beside`, and of the candidate, and whether that passes."""

    what: str
    beside: str
    before: str
    after: str
    difference: str
    rule: str
    passed: bool

    def __str__(self) -> str:
        if not self.before:  # there is a difference alone
            return f"{self.what}: {self.difference} of {self.beside}"
        return f"{self.what}: {self.before} of {self.beside} -> {self.after}, {self.difference}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All conditions; the candidate may answer where it passes every one."""

    checks: tuple[Check, ...]

    @property
    def promote(self) -> bool:
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def reasons(self) -> list[str]:
        """Why it may not answer, a sentence each."""
        return [f"{check}; {check.rule}." for check in self.checks if not check.passed]


def rows(verdict: Verdict) -> Sequence[tuple[str, ...]]:
    """The conditions as the rows of a table."""
    head = ("", "beside", "before", "candidate", "difference", "rule", "")
    return [
        head,
        *(
            (
                one.what,
                one.beside,
                one.before,
                one.after,
                one.difference,
                one.rule,
                "passed" if one.passed else "FAILED",
            )
            for one in verdict.checks
        ),
    ]


def markdown(cells: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a table of Markdown, the first its head."""
    head, *rest = cells
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (head, ["---"] * len(head), *rest)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
