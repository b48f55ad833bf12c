"""`chatbot retrain aigc`: train the picture model in use further, and let only what is better draw."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.cli.numbers import SEEDS, count, within
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.retraining import alone, said_of, tell_end, with_store
from chatbot.cli.train import train
from chatbot.cli.train_gpt import considerate
from chatbot.errors import UserError

if TYPE_CHECKING:
    from chatbot.settings import Settings


def add_arguments(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = (
        "train the picture model in use further on a folder of pictures, judge it beside that one on what was held "
        "out, and let it draw only where it is better"
    )
    aigc = what.add_parser("aigc", help=text, description=text, allow_abbrev=False)
    aigc.add_argument("--data", type=Path, metavar="DIR", help="pictures, as `chatbot train aigc` reads them")
    aigc.add_argument("--minutes", type=float, metavar="N", help="wall time of the training (default 30)")
    aigc.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: one in the home)")
    aigc.add_argument("--resume", action="store_true", help="go on with the run in --out, to the same end")
    aigc.add_argument("--dry-run", action="store_true", help="say what would be learned and judged; train nothing")
    aigc.add_argument("--no-promote", action="store_true", help="whatever the verdict, it stays a candidate")
    aigc.add_argument(
        "--keep", type=count, default=5, metavar="N", help="retrained versions that are kept (default 5)"
    )
    aigc.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    aigc.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    considerate()
    within(arguments, minutes=(1e-3, 1e5), seed=SEEDS)
    if arguments.resume:
        if arguments.out is None:
            raise UserError("Say which run to go on with: --out RUN.")
        if given := [name for name in ("data", "minutes", "seed") if getattr(arguments, name) is not None]:
            raise UserError(f"A run that is resumed knows it already; leave --{given[0]} out.")
    elif arguments.data is None:
        raise UserError("Say which pictures to learn from: --data DIR.")
    from chatbot.settings import Settings

    settings = Settings.load()
    with alone(settings.home):
        return _retrain(settings, arguments)


def _retrain(settings: Settings, arguments: argparse.Namespace) -> int:
    from chatbot.aigc import run_file
    from chatbot.aigc.encoder import encoder_folder
    from chatbot.aigc.jury import Jury
    from chatbot.retrain import aigc

    out = arguments.out or settings.home / "retrain" / f"aigc-{datetime.now():%Y%m%d-%H%M%S}"
    out = out.expanduser().resolve()
    begun = run_file.read(out)[0] if arguments.resume else None
    data = Path(begun.data) if begun is not None else arguments.data.expanduser().resolve()
    with ProgressPrinter() as progress:
        ground = with_store(settings, lambda store: aigc.survey(store, progress.tell))
        jury = Jury(data, encoder_folder(progress.tell), ground.channels, progress.tell, say)
    with closing(jury):
        if begun is not None:
            aigc.check_resumed(out, begun, ground, jury.real.items)
        with ProgressPrinter() as progress:
            before = jury.look(ground.folder, ground.current.ref, progress.tell)
        say(f"In use: {ground.current.ref}; judged on {len(jury.numbers)} of {len(jury.real.items):,} pictures.")
        if arguments.dry_run:
            return 0
        options = None
        if begun is None:
            options = ground.options(data, arguments.minutes or 30.0, arguments.seed or 0)
        outcome, _ = train(out, options)
        with ProgressPrinter() as progress:
            after = jury.look(outcome.model, "candidate", progress.tell)
            verdict = aigc.decide(after, before)
            ended = with_store(
                settings,
                lambda store: aigc.conclude(
                    store, settings, ground, outcome, (before, after), verdict,
                    may_promote=not arguments.no_promote, keep=arguments.keep, notify=progress,
                ),
            )  # fmt: skip
    said = said_of(ended, verdict, ground.current)
    after = replace(after, name=ended.version.ref)
    place = aigc.report(out, (before, after), verdict, said)
    aigc.clear(out)
    tell_end(ended, verdict, said, place)
    return 0
