"""One row of figures, ours beside a peer's from the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is ours over theirs; `goal` says what it should be."""

    what: str
    unit: str
    ours: float
    theirs: float
    peer: str
    goal: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def render(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | ours | peer | | ratio | difference | goal |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.ours:.4g} {row.unit} | {row.theirs:.4g} {row.unit} | {row.peer} "
        f"| {row.ratio:.3f} | {row.ours - row.theirs:+.4g} {row.unit} | {row.goal} |"
        for row in rows
    ]
    return "\n".join(lines)
