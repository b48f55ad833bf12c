"""`chatbot retrain`: learn from the conversations there are, and let only what is better answer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.cli import retrain_aigc
from chatbot.cli.conversations import moment
from chatbot.cli.numbers import SEEDS, count, within
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.retraining import alone, said_of, tell_end, with_store
from chatbot.cli.train_gpt import considerate, train
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.gpt.corpus import Report
    from chatbot.gpt.options import Options
    from chatbot.gpt.run import Outcome
    from chatbot.gpt.samples import Dialogue, Predicted, Preference
    from chatbot.retrain.gpt import Ground
    from chatbot.settings import Settings
    from chatbot.store import Store

HELP = "retrain a model in use, and let it answer only where it is better"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="WHAT", required=True)
    text = (
        "fine-tune the chat model on the conversations of people who allowed it, judge it beside the one in use on "
        "what was held out, and let it answer only where it is better"
    )
    gpt = what.add_parser("gpt", help=text, description=text, allow_abbrev=False)
    gpt.add_argument(
        "--since", type=moment, metavar="DATE", help="from conversations spoken in then or later, 2026-01-31"
    )
    gpt.add_argument("--data", type=Path, nargs="+", metavar="FILE", default=[], help="learn from these chats too")
    gpt.add_argument(
        "--general", type=Path, nargs="+", metavar="FILE", default=[], help="must not be forgotten, beside what comes"
    )
    gpt.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: one in the home)")
    gpt.add_argument("--resume", action="store_true", help="go on with the run in --out, to the same end")
    gpt.add_argument("--dry-run", action="store_true", help="say what would be learned and judged; train nothing")
    gpt.add_argument("--no-promote", action="store_true", help="whatever the verdict, it stays a candidate")
    gpt.add_argument(
        "--margin", type=float, default=0.03, metavar="X", help="bits per byte that anything general may cost"
    )
    gpt.add_argument(
        "--keep", type=count, default=5, metavar="N", help="retrained versions that are kept (default 5)"
    )
    length = gpt.add_mutually_exclusive_group()
    length.add_argument("--steps", type=count, metavar="N", help="steps of the training")
    length.add_argument("--epochs", type=float, metavar="X", help="passes over what is learned (default 2)")
    gpt.add_argument("--rate", type=float, metavar="X", help="learning rate")
    gpt.add_argument("--lora-rank", type=count, metavar="N", help="of the adapter (default 16)")
    gpt.add_argument("--batch-tokens", type=count, metavar="N", help="tokens before each step")
    gpt.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    gpt.set_defaults(run=run)
    retrain_aigc.add_arguments(what)


def run(arguments: argparse.Namespace) -> int:
    considerate()
    within(arguments, rate=(1e-12, 1e6), epochs=(1e-12, 1e6), margin=(0.0, 1e6), seed=SEEDS)
    if arguments.resume:
        if arguments.out is None:
            raise UserError("Say which run to go on with: --out RUN.")
        names = ("data", "since", "steps", "epochs", "rate", "lora_rank", "batch_tokens", "seed")
        if given := [name for name in names if getattr(arguments, name) not in (None, [])]:
            raise UserError(f"A run that is resumed knows it already; leave --{given[0].replace('_', '-')} out.")
    from chatbot.settings import Settings

    settings = Settings.load()
    if settings.model:
        say(f"CHATBOT_MODEL is {settings.model}: that answers, whatever is put to use here.")
    with alone(settings.home):
        return _retrain(settings, arguments)


def _retrain(settings: Settings, arguments: argparse.Namespace) -> int:
    from chatbot.gpt.learned import keep_learned, kept_learned
    from chatbot.gpt.run import options_of
    from chatbot.gpt.speed import precision
    from chatbot.retrain import gpt, report
    from chatbot.retrain.gate import Margins
    from chatbot.training.stats import Stats

    data = [path.expanduser().resolve() for path in arguments.data]
    more = [path.expanduser() for path in arguments.general]
    out = arguments.out or settings.home / "retrain" / f"gpt-{datetime.now():%Y%m%d-%H%M%S}"
    out = out.expanduser().resolve()
    since = arguments.since
    outcome: Outcome | None = None
    learned: list[str] = []
    if arguments.resume:
        begun, learned, outcome = options_of(out), kept_learned(out), gpt.kept_outcome(out)
        if (out / gpt.PREFER / "run.json").exists():
            learned = [*learned, *kept_learned(out / gpt.PREFER)]
        data = [Path(path) for path in begun.data]
        since = datetime.fromisoformat(begun.since) if begun.since else None
    with ProgressPrinter() as progress:
        ground = with_store(settings, lambda store: _survey(store, settings, since, learned, progress))
        if not ground.own and not data:
            raise UserError(
                "There is nothing to learn from: nobody allowed it, or nothing was said. `chatbot conversations "
                "consent on` allows it for yours, and --data FILE adds chats."
            )
        samples = gpt.samples_of(data, ground.own, more, progress.tell)
    for line in _told(ground, samples, settings.system):
        say(line)
    if few := gpt.too_few(samples):
        say(few)
    if arguments.dry_run:
        return 0
    if outcome is None:
        options = None if arguments.resume else _options(settings, arguments, ground, data)
        if not arguments.resume:
            keep_learned(out, ground.own)

        def own(told: Report) -> Sequence[Dialogue]:
            told.left_out.update(ground.report.left_out)
            keep_learned(out, ground.own)
            return ground.own

        outcome, _ = train(out, options, None, f"retrain gpt --out {out}", own)
        gpt.keep_outcome(out, outcome)
    learned = kept_learned(out)
    stats = [Stats(out, active=False).rows()]
    place = out / gpt.PREFER
    there = (place / "run.json").exists()
    if not there:  # much may have been said, and forgotten, since the training began
        with ProgressPrinter() as progress:
            ground = with_store(settings, lambda store: _survey(store, settings, since, learned, progress))
    if there or gpt.enough_preferences(ground.preferences, ground.base_folder, settings.system):
        then = gpt.kept_outcome(place)
        if then is None:

            def preferred(told: Report) -> Sequence[Preference]:
                keep_learned(place, ground.preferences)
                return ground.preferences

            then, _ = train(
                place, None if there else _preferring(outcome), None, f"retrain gpt --out {out}", preferred
            )
            gpt.keep_outcome(place, then)
        learned = [*learned, *kept_learned(place)]
        outcome = gpt.joined(outcome, then)
        stats.append(Stats(place, active=False).rows())
    margins = replace(Margins(), general=arguments.margin)
    with ProgressPrinter() as progress:
        before, after, verdict = gpt.compare(
            ground.in_use, outcome, samples, margins, settings, precision(), progress.tell
        )
        ended = with_store(
            settings,
            lambda store: gpt.conclude(
                store, settings, ground, outcome, (before, after), verdict, learned,
                may_promote=not arguments.no_promote, keep=arguments.keep, notify=progress,
            ),
        )  # fmt: skip
    after.name = ended.version.ref
    said = said_of(ended, verdict, ground.current)
    place = report.write(out, report.Retrained(before, after, verdict, said, outcome, stats))
    gpt.clear(out)
    tell_end(ended, verdict, said, place)
    return 0


def _options(settings: Settings, arguments: argparse.Namespace, ground: Ground, data: list[Path]) -> Options:
    from chatbot.gpt.options import finetuning
    from chatbot.gpt.speed import precision

    names = ("steps", "epochs", "rate", "lora_rank", "batch_tokens", "seed")
    return finetuning(
        "lora",
        **{name: getattr(arguments, name) for name in names},
        data=tuple(map(str, data)),
        conversations=bool(ground.own),
        since=arguments.since.isoformat() if arguments.since else "",
        patience=0,
        evaluations=1,  # what it is judged on may not choose among its states
        base=ground.base.ref,
        base_ref=ground.base.ref,
        base_folder=str(ground.base_folder),
        system=settings.system,
        precision=precision(),
    )


def _preferring(outcome: Outcome) -> Options:
    """The options of learning preferences on the adapter that fine-tuning gave."""
    from chatbot.gpt.options import preferring

    names = ("base", "base_ref", "base_folder", "lora_rank", "block", "batch_tokens", "since", "system", "seed")
    return preferring(
        **{name: getattr(outcome.options, name) for name in (*names, "precision")},
        adapter=str(outcome.model),
        conversations=True,
        evaluations=1,
    )


async def _survey(
    store: Store, settings: Settings, since: datetime | None, learned: list[str], progress: ProgressPrinter
) -> Ground:
    from chatbot.gpt.learned import check_learned
    from chatbot.retrain.gpt import survey

    await check_learned(store, learned)
    return await survey(store, settings, since, progress.tell)


def _told(ground: Ground, samples: dict[str, list[Predicted]], system: str) -> list[str]:
    """What is there, before anything is trained."""
    from chatbot.gpt.preferences import counted
    from chatbot.retrain.gpt import enough_preferences

    left_out = ", ".join(f"{number:,} {why}" for why, number in sorted(ground.report.left_out.items()))
    counts = ", ".join(f"{len(some)} {kind}" for kind, some in samples.items())
    lines = [f"{len(ground.own):,} conversations may be learned from."]
    rated = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counted(ground.preferences).items()))
    if rated:
        enough = enough_preferences(ground.preferences, ground.base_folder, system)
        use = "learned after them" if enough else "too few to be learned"
        lines.append(f"What people thought of replies: {rated}; {use}.")
    lines += [f"Left out: {left_out}."] if left_out else []
    return [*lines, f"In use: {ground.current.ref}; trained anew: {ground.base.ref}; judged on: {counts}."]
