"""The report of a retraining, as a page and as Markdown."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.gpt import checks
from chatbot.gpt.evaluate import Measured
from chatbot.gpt.report import curves, evaluation_body, training_body
from chatbot.gpt.run import Outcome
from chatbot.retrain.verdict import Verdict, markdown, rows
from chatbot.training.stats import page, table


@dataclass(frozen=True, slots=True)
class Retrained:
    """All that is told of one retraining."""

    current: Measured
    candidate: Measured
    verdict: Verdict
    said: str
    """What follows from the verdict, in a sentence."""
    outcome: Outcome
    stats: Sequence[Sequence[Mapping[str, Any]]]
    """Of each stage."""


def write(run: Path, told: Retrained) -> Path:
    """Write retrain.html and retrain.md into the folder of the run; returns the path of the page."""
    (run / "retrain.md").write_text(_markdown(run.name, told), encoding="utf-8")
    place = run / "retrain.html"
    place.write_text(_page(run.name, told), encoding="utf-8")
    return place


def _page(name: str, told: Retrained) -> str:
    outcome = told.outcome
    both = (told.current, told.candidate)
    return page(
        f"Retraining report: {html.escape(name)}",
        f"<p><b>{html.escape(told.said)}</b></p>{table(rows(told.verdict))}"
        f"<h2>Before and after</h2>{evaluation_body(both, {}, checks.PROMPTS)}"
        f"<h2>Training</h2>{training_body(outcome.options, outcome.figures, outcome.corpus, told.stats[0])}"
        + "".join(f"<h2>What people prefer</h2>{curves(rows)}" for rows in told.stats[1:]),
    )


def _markdown(name: str, told: Retrained) -> str:
    replies = [("", told.current.name, told.candidate.name)]
    replies += [
        (prompt, told.current.replies[place], told.candidate.replies[place])
        for place, prompt in enumerate(checks.PROMPTS)
    ]
    figures = ((key, str(value)) for key, value in told.outcome.figures.items())
    corpus = ((key, str(value)) for key, value in told.outcome.corpus.items())
    parts = [
        f"# Retraining report: {name}",
        told.said,
        markdown(rows(told.verdict)),
        "## Learned from",
        markdown([("", ""), *corpus]),
        "## Training",
        markdown([("", ""), *figures]),
        "## Replies",
        markdown(replies),
    ]
    return "\n\n".join(parts) + "\n"
