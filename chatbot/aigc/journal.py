"""What a run writes for people: stats.jsonl, TensorBoard, and at the end report.html."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chatbot.aigc.options import Options

_STATS = "stats.jsonl"


class Journal:
    """Appends to the files of a run. Of several processes only the first is `active`."""

    def __init__(self, run: Path, *, active: bool = True) -> None:
        self._run, self._active, self._board = run, active, None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            run.mkdir(parents=True, exist_ok=True)
            self._board = SummaryWriter(str(run / "tensorboard"))

    def step(self, stage: str, step: int, batch: int, pace: float, numbers: dict[str, float]) -> None:
        row = {"stage": stage, "step": step, "kimg": step * batch / 1000, "images_per_s": round(pace, 1)}
        self._append(row | {name: round(value, 6) for name, value in numbers.items()})
        self._scalars(stage, step, {**numbers, "images_per_s": pace})

    def snapshot(self, stage: str, step: int, figures: dict[str, float], sheet: Image.Image) -> None:
        self._append({"stage": stage, "step": step, "snapshot": {k: round(v, 6) for k, v in figures.items()}})
        self._scalars(stage, step, figures)
        if self._board is not None:
            self._board.add_image(f"{stage}/grid", np.asarray(sheet), step, dataformats="HWC")

    def rewind(self, stage: str, step: int) -> None:
        """Forget what was written after a step: it is about to happen again."""
        path = self._run / _STATS
        if not self._active or not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _before(line, stage, step)]
        part = path.with_suffix(".partial")
        part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        part.replace(path)

    def rows(self) -> list[dict[str, Any]]:
        """Everything written so far."""
        path = self._run / _STATS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def report(self, figures: dict[str, Any], options: Options, atlas: str) -> None:
        """One page: figures, curves, the grids from first to last, and the part that shows the atlas."""
        if not self._active:
            return
        grids = sorted((self._run / "grids").glob("*.png"))
        shown = [*grids[:1], *grids[1:-1:4], *grids[-1:]] if grids else []
        cells = "".join(f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in figures.items())
        asked = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(str(v))}" for k, v in options.as_json().items())
        pictures = "".join(
            f'<h3>{html.escape(path.stem)}</h3><img src="grids/{path.name}" alt="">' for path in dict.fromkeys(shown)
        )
        body = (
            f"<h1>Training report</h1><table>{cells}</table>{self._curves()}<h2>Pictures</h2><p>From above: real, as "
            "A_D's autoencoder rebuilds them, and made from their captions with two sets of codes.</p>"
            f"{pictures}{atlas}<h2>Options</h2><table>{asked}</table>"
        )
        page = (
            '<!doctype html><meta charset="utf-8"><title>Training report</title><style>body{font:15px sans-serif;'
            f"margin:2em}}td{{padding:0 1em 0 0}}img{{max-width:100%}}svg{{margin:.5em}}</style>{body}"
        )
        (self._run / "report.html").write_text(page, encoding="utf-8")

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _append(self, row: dict[str, Any]) -> None:
        if self._active:
            with (self._run / _STATS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def _scalars(self, stage: str, step: int, numbers: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{stage}/{name}", value, step)

    def _curves(self) -> str:
        series: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows():
            numbers = row.get("snapshot", row)
            for name, value in numbers.items():
                if name not in ("stage", "step", "kimg") and isinstance(value, int | float):
                    series.setdefault(f"{row['stage']} {name}", []).append((row["step"], value))
        return "<h2>Curves</h2>" + "".join(_curve(name, points) for name, points in sorted(series.items()))


def _before(line: str, stage: str, step: int) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False  # cut by a crash
    order = ("autoencoder", "gan")
    at = (order.index(row["stage"]), row["step"])
    return at <= (order.index(stage), step)


def _curve(name: str, points: list[tuple[float, float]]) -> str:
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
