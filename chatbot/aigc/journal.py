"""What a run of the picture model writes for people: stats.jsonl, TensorBoard, and at the end report.html."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chatbot.aigc.options import Options
from chatbot.training.stats import Stats, curve, page, table

_STAGES = ("autoencoder", "gan")


class Journal:
    """Appends to the files of a run. Of several processes only the first is `active`; `offset` gives how many steps
    came before a stage: TensorBoard counts through both, and forgets by that count."""

    def __init__(self, run: Path, offset: Callable[[str], int], *, active: bool = True) -> None:
        self._run, self._offset, self._active = run, offset, active
        self._stats = Stats(run, active=active)

    def step(self, stage: str, step: int, batch: int, pace: float, numbers: dict[str, float]) -> None:
        row = {"stage": stage, "step": step, "kimg": step * batch / 1000, "images_per_s": round(pace, 1)}
        self._stats.append(row | {name: round(value, 6) for name, value in numbers.items()})
        self._stats.scalars(stage, self._offset(stage) + step, {**numbers, "images_per_s": pace})

    def snapshot(self, stage: str, step: int, figures: dict[str, float], sheet: Image.Image) -> None:
        self._stats.append(
            {"stage": stage, "step": step, "snapshot": {name: round(value, 6) for name, value in figures.items()}}
        )
        shown_at = self._offset(stage) + step
        self._stats.scalars(stage, shown_at, figures)
        if self._stats.board is not None:
            self._stats.board.add_image(f"{stage}/grid", np.asarray(sheet), shown_at, dataformats="HWC")

    def rewind(self, stage: str, step: int) -> None:
        """Forget what was written after a step: it is about to happen again."""
        last = (_STAGES.index(stage), step)
        self._stats.rewind(lambda row: (_STAGES.index(row["stage"]), row["step"]) <= last, self._offset(stage) + step)

    def report(self, figures: dict[str, Any], options: Options, atlas: str) -> None:
        """One page: figures, curves, the grids from first to last, and the part that shows the atlas."""
        if not self._active:
            return
        grids = sorted((self._run / "grids").glob("*.png"))
        shown = [*grids[:1], *grids[1:-1:4], *grids[-1:]] if grids else []
        pictures = "".join(
            f'<h3>{html.escape(path.stem)}</h3><img src="grids/{path.name}" alt="">' for path in dict.fromkeys(shown)
        )
        body = (
            f"{table(figures.items())}{self._curves()}<h2>Pictures</h2><p>From above: real, as "
            "A_D's autoencoder rebuilds them, and made from their captions with two sets of codes.</p>"
            f"{pictures}{atlas}<h2>Options</h2>{table(options.as_json().items())}"
        )
        (self._run / "report.html").write_text(page("Training report", body), encoding="utf-8")

    def close(self) -> None:
        self._stats.close()

    def _curves(self) -> str:
        series: dict[str, list[tuple[float, float]]] = {}
        for row in self._stats.rows():
            numbers = row.get("snapshot", row)
            for name, value in numbers.items():
                if name not in ("stage", "step", "kimg") and isinstance(value, int | float):
                    series.setdefault(f"{row['stage']} {name}", []).append((row["step"], value))
        return "<h2>Curves</h2>" + "".join(curve(name, points) for name, points in sorted(series.items()))
