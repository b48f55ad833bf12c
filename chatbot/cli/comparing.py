"""Two versions of a model beside each other: where they come from, how they were made, what was measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.registry import Listed

NOT_FIGURES = ("before", "verdict")
"""Of a retraining: the figures of the other model, and conditions; each is a table of its own."""


def compared(one: Listed, other: Listed) -> list[tuple[str, str, str]]:
    """What is known of two versions, a row each: the name of it, and what it is of either.

    All figures, and of the settings those that differ. Raises UserError where they do different things.
    """
    if one.version.kind != other.version.kind:
        raise UserError(
            f"{one.version.ref} is of the kind {one.version.kind}, {other.version.ref} of {other.version.kind}; "
            "there is nothing to compare."
        )
    known = (_known(one), _known(other))
    # On the same samples, where one was judged beside the other: these tell more than what was measured apart.
    left, right = known[0] | _beside(other, one), known[1] | _beside(one, other)
    rows = [(name, left.get(name, ""), right.get(name, "")) for name in known[0] | known[1]]
    return [row for row in rows if row[1] != row[2] or not row[0].startswith("settings: ")]


def _beside(judged: Listed, row: Listed) -> dict[str, str]:
    """What was measured of a version when another was judged beside it."""
    figures = judged.version.figures
    checks = figures.get("verdict", {}).get("checks") or [{}]
    return (
        dict(_flat(figures["before"])) if checks[0].get("beside") == row.version.ref and "before" in figures else {}
    )


def _known(row: Listed) -> dict[str, str]:
    version = row.version
    found = {
        "version": version.ref,
        "state": row.state,
        "made": f"{version.created.astimezone():%Y-%m-%d %H:%M:%S}" if version.data_fingerprint else "",
        "made from": version.parent or "",
        "data": (version.data_fingerprint or "")[:12],
        "code": version.code_version,
        "size": f"{row.size / 1e6:,.0f} MB" if row.size else "",
    }
    found |= {f"settings: {name}": text for name, text in _flat(version.settings)}
    figures = {name: value for name, value in version.figures.items() if name not in NOT_FIGURES}
    return found | dict(_flat(figures))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value not in ("", None, [], ()):
            yield before + name, _shown(value)


def _shown(value: Any) -> str:
    """A number, one with its interval, or whatever else it is."""
    if isinstance(value, list) and len(value) == 3 and all(isinstance(each, int | float) for each in value):
        return "{:.4g} [{:.4g}, {:.4g}]".format(*value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
