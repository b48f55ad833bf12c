"""What a run writes for people as it goes: stats.jsonl, TensorBoard, and the curves of its report."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_STATS = "stats.jsonl"


class Stats:
    """Appends to the files of a run. Of several processes only the first is `active`."""

    def __init__(self, run: Path, *, active: bool = True) -> None:
        self._path, self._active = run / _STATS, active
        self._board: Any = None
        self._purged: int | None = None
        if active:
            run.mkdir(parents=True, exist_ok=True)

    @property
    def board(self) -> Any:
        """TensorBoard's writer, or None where it is not ours to write."""
        if self._active and self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._path.with_name("tensorboard")), purge_step=self._purged)
        return self._board

    def append(self, row: Mapping[str, Any]) -> None:
        if self._active:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def scalars(self, group: str, step: int, numbers: Mapping[str, float]) -> None:
        """Show numbers in TensorBoard, under `group`."""
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(f"{group}/{name}", value, step)

    def rewind(self, happened: Callable[[dict[str, Any]], bool], step: int | None = None) -> None:
        """Forget the rows that did not happen, as `happened` says of each: training goes on from before them. And
        what TensorBoard shows after `step`."""
        if step is not None:
            self.close()
            self._purged = step + 1
        if not self._active or not self._path.exists():
            return
        kept = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _is(line, happened)]
        part = self._path.with_suffix(".partial")
        part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        part.replace(self._path)

    def rows(self) -> list[dict[str, Any]]:
        """Everything written so far."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A small plot as SVG, its least and greatest value written beside it."""
    low, high = min(value for _, value in points), max(value for _, value in points)
    width = max(step for step, _ in points) or 1
    path = " ".join(
        f"{5 + 250 * step / width:.1f},{85 - 80 * (value - low) / ((high - low) or 1):.1f}" for step, value in points
    )
    return (
        f'<svg width="270" height="110" viewBox="0 0 270 110"><polyline points="{path}" fill="none" stroke="#36c"/>'
        f'<text x="5" y="103" font-size="11">{html.escape(name)}: {low:.4g} to {high:.4g}, last {points[-1][1]:.4g}'
        "</text></svg>"
    )


def table(rows: Iterable[tuple[Any, ...]]) -> str:
    """Rows of cells as an HTML table."""
    return (
        f"<table>{''.join('<tr>' + ''.join(f'<td>{html.escape(str(cell))}' for cell in row) for row in rows)}</table>"
    )


def page(title: str, body: str) -> str:
    """A page of HTML that needs nothing beside it."""
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>body{{font:15px sans-serif;'
        "margin:2em}td{padding:0 1em 0 0;vertical-align:top}img{max-width:100%}svg{margin:.5em}</style>"
        f"<h1>{html.escape(title)}</h1>{body}"
    )


def _is(line: str, happened: Callable[[dict[str, Any]], bool]) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False  # cut by a crash
    return happened(row)
