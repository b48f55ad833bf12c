"""Reports as a page: of a run, and of what measuring a model found."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatbot.gpt.options import Options
from chatbot.training.stats import Stats, curve, page, table


def training(
    run: Path, options: Options, figures: Mapping[str, Any], corpus: Mapping[str, Any], stats: Stats
) -> None:
    """Write report.html of a run: figures, what it learned from, curves, and samples from first to last."""
    rows = stats.rows()
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "tokens", "samples"):
                series.setdefault(name, []).append((row["step"], value))
    curves = "".join(curve(name, points) for name, points in sorted(series.items()))
    tried = [row for row in rows if "samples" in row]
    shown = tried[:1] + tried[1:-1][:: max(1, len(tried) // 4)] + tried[-1:] if tried else []
    said = "".join(
        f"<h3>Step {row['step']:,}</h3>{table(row['samples'])}"
        for row in {row["step"]: row for row in shown}.values()
    )
    body = (
        f"{table(figures.items())}<h2>Learned from</h2>{table(corpus.items())}<h2>Curves</h2>{curves}"
        f"<h2>Samples</h2>{said}<h2>Options</h2>{table(options.as_json().items())}"
    )
    (run / "report.html").write_text(page(f"Training report: {html.escape(run.name)}", body), encoding="utf-8")
