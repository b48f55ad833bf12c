"""Reports as a page: of a run, and of what measuring a model found."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.gpt.options import Options
from chatbot.training.stats import Stats, curve, page, table

if TYPE_CHECKING:
    from chatbot.gpt.evaluate import Measured


def training(
    run: Path, options: Options, figures: Mapping[str, Any], corpus: Mapping[str, Any], stats: Stats
) -> None:
    """Write report.html of a run: figures, what it learned from, curves, and samples from first to last."""
    body = training_body(options, figures, corpus, stats.rows())
    (run / "report.html").write_text(page(f"Training report: {html.escape(run.name)}", body), encoding="utf-8")


def training_body(
    options: Options, figures: Mapping[str, Any], corpus: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """The same as a part of a page, from the rows of the run's statistics."""
    tried = [row for row in rows if "samples" in row]
    shown = tried[:1] + tried[1:-1][:: max(1, len(tried) // 4)] + tried[-1:] if tried else []
    said = "".join(
        f"<h3>Step {row['step']:,}</h3>{table(row['samples'])}"
        for row in {row["step"]: row for row in shown}.values()
    )
    return (
        f"{table(figures.items())}<h2>Learned from</h2>{table(corpus.items())}<h2>Curves</h2>{curves(rows)}"
        f"<h2>Samples</h2>{said}<h2>Options</h2>{table(options.as_json().items())}"
    )


def curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every figure of a run's statistics over its steps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "tokens", "samples"):
                series.setdefault(name, []).append((row["step"], value))
    return "".join(curve(name, points) for name, points in sorted(series.items()))


def evaluation(measured: Sequence[Measured], differences: Mapping[str, Any], prompts: Sequence[str]) -> str:
    """A page: every figure of the models side by side, intervals drawn, and their replies."""
    return page("Evaluation", evaluation_body(measured, differences, prompts))


def evaluation_body(measured: Sequence[Measured], differences: Mapping[str, Any], prompts: Sequence[str]) -> str:
    """The same as a part of a page."""
    figures = [one.figures() for one in measured]
    names = [one.name for one in measured]
    rows = [("", *names)]
    plots = []
    for key in figures[0]:
        rows.append((key, *(_shown(one[key]) for one in figures)))
        if isinstance(figures[0][key], list):
            plots.append(
                _intervals(key, [(one.name, found[key]) for one, found in zip(measured, figures, strict=True)])
            )
    replies = [("", *names)]
    replies += [(prompt, *(one.replies[place] for one in measured)) for place, prompt in enumerate(prompts)]
    body = f"{table(rows)}{''.join(plots)}"
    if differences:
        body += f"<h2>{html.escape(names[0])} less {html.escape(names[1])}</h2>"
        body += table((key, _shown(value)) for key, value in differences.items())
    return f"{body}<h2>Replies</h2>{table(replies)}"


def _shown(value: Any) -> str:
    return f"{value[0]:.4g} [{value[1]:.4g}, {value[2]:.4g}]" if isinstance(value, list) else f"{value:.4g}"


def _intervals(name: str, found: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Figures as dots on a common scale, their intervals as lines through them."""
    low, high = min(one[1] for _, one in found), max(one[2] for _, one in found)
    width = (high - low) or 1

    def place(value: float) -> float:
        return 10 + 280 * (value - low) / width

    lines = "".join(
        f'<path d="M{place(one[1]):.1f} {20 + 24 * n}H{place(one[2]):.1f}" stroke="#36c"/>'
        f'<circle cx="{place(one[0]):.1f}" cy="{20 + 24 * n}" r="4" fill="#36c"/>'
        f'<text x="300" y="{24 + 24 * n}" font-size="11">{html.escape(who)}: {_shown(one)}</text>'
        for n, (who, one) in enumerate(found)
    )
    height = 24 * len(found) + 16
    return f'<h3>{html.escape(name)}</h3><svg width="640" height="{height}" viewBox="0 0 640 {height}">{lines}</svg>'
