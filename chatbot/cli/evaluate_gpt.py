"""`chatbot evaluate gpt`: how good a chat model is, alone or beside another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.cli.numbers import count
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.cli.train_gpt import considerate
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.gpt.evaluate import Candidate, Measured
    from chatbot.gpt.samples import Dialogue


FEW = 8
"""Samples below which an interval says nothing: a bootstrap cannot show what was never drawn."""


def add_arguments(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "measure a chat model on general text, on what is held out, on instructions and replies"
    gpt = what.add_parser("gpt", help=text, description=text, allow_abbrev=False)
    gpt.add_argument(
        "--model", default="", metavar="MODEL", help="NAME[@VERSION], or its folder; none: the one in use"
    )
    gpt.add_argument("--compare", metavar="MODEL", help="measure this one too, and show both side by side")
    gpt.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="as for training: what is held out of it is used",
    )
    gpt.add_argument("--conversations", action="store_true", help="those of people who allowed it, held out, too")
    gpt.add_argument("--most", type=count, default=200, metavar="N", help="samples of each kind (default 200)")
    gpt.add_argument("--system", metavar="TEXT", help="system prompt (default: that of the settings)")
    gpt.add_argument("--report", type=Path, metavar="FILE.html", help="write a report with plots")
    gpt.add_argument("--json", action="store_true", help="print one JSON object")
    gpt.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    considerate()
    from chatbot.gpt.reading import files

    files(arguments.data)
    if arguments.report is not None and not arguments.report.expanduser().resolve().parent.is_dir():
        raise UserError(f"There is no folder {arguments.report.parent} for the report.")
    from chatbot.gpt import checks, report
    from chatbot.gpt.evaluate import held_out, measure
    from chatbot.gpt.speed import precision
    from chatbot.retrain.general import general
    from chatbot.settings import Settings

    system = Settings.load().system if arguments.system is None else arguments.system
    with ProgressPrinter() as progress:
        wanted = [arguments.model, *([arguments.compare] if arguments.compare else [])]
        candidates, own = run_async(_candidates(wanted, arguments.conversations, progress))
        samples = held_out(arguments.data, own, arguments.most, progress.tell)
        if not samples and (arguments.data or own):
            raise UserError("Nothing of this data is held out, since there is so little; name more.")
        samples |= general()
        measured = [
            measure(one, samples, system=system, precision=precision(), tell=progress.tell) for one in candidates
        ]
    differences: dict[str, Any] = {}
    if len(measured) == 2:
        first, second = measured
        for kind, scores in first.scores.items():
            if scores.alike(second.scores[kind]).any():
                differences[f"bits_per_byte_{kind}"] = scores.less_than(second.scores[kind]).as_json()
    if arguments.report is not None:
        arguments.report.expanduser().write_text(
            report.evaluation(measured, differences, checks.PROMPTS), encoding="utf-8"
        )
        say(f"Report: {arguments.report}")
    if arguments.json:
        print(json.dumps(_json(measured, differences, samples), ensure_ascii=False, indent=1))
    else:
        _print(measured, differences, samples)
    return 0


async def _candidates(
    wanted: Sequence[str], conversations: bool, progress: ProgressPrinter
) -> tuple[list[Candidate], Sequence[Dialogue]]:
    from chatbot.gpt.corpus import Report, own_conversations
    from chatbot.gpt.versions import candidate_of
    from chatbot.settings import Settings
    from chatbot.store import open_store

    settings = Settings.load()
    found = []
    async with open_store(settings) as store:
        for name in wanted:
            version = await (store.registry.find(name) if name else store.registry.current("gpt"))
            found.append(await candidate_of(store.registry, settings, version, progress.tell))
        own = await own_conversations(store, Report()) if conversations else []
    return found, own


def _print(measured: Sequence[Measured], differences: dict[str, Any], samples: dict[str, Any]) -> None:
    for kind, some in samples.items():
        print(f"{len(some)} samples of {kind}, held out")
    for one in measured:
        print(f"\n{one.name}")
        for key, value in one.figures().items():
            print(f"  {key:24} {_figure(value)}")
    if differences:
        print(f"\n{measured[0].name} less {measured[1].name}")
        for key, value in differences.items():
            verdict = "better" if value[2] < 0 else "worse" if value[1] > 0 else "no difference that shows"
            if len(samples[key.removeprefix("bits_per_byte_")]) < FEW:
                verdict = "too few samples to tell"
            print(f"  {key:24} {_figure(value)}  {verdict}")
    from chatbot.gpt.checks import PROMPTS

    for place, prompt in enumerate(PROMPTS):
        print(f"\n> {prompt}")
        for one in measured:
            print(f"  {one.name}: {' '.join(one.replies[place].split())}")


def _figure(value: Any) -> str:
    return f"{value[0]:.4g} [{value[1]:.4g}, {value[2]:.4g}]" if isinstance(value, list) else f"{value:.4g}"


def _json(measured: Sequence[Measured], differences: dict[str, Any], samples: dict[str, Any]) -> dict[str, Any]:
    return {
        "samples": {kind: len(some) for kind, some in samples.items()},
        "models": [{"model": one.name, **one.figures(), "replies": one.replies} for one in measured],
        "difference": differences,
    }
