"""`chatbot evaluate`: how good a model is, in figures with their floors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from chatbot.cli import evaluate_gpt
from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.errors import UserError

HELP = "measure how good a model is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(metavar="WHAT", required=True)
    text = "measure a picture model against real pictures"
    aigc = what.add_parser("aigc", help=text, description=text, allow_abbrev=False)
    aigc.add_argument(
        "--model", default="", metavar="NAME", help="NAME[@VERSION], or its folder; none: the one in use"
    )
    aigc.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the pictures it was trained on, with those held out (default: those of the default model, built once "
        "by npm into the cache)",
    )
    aigc.add_argument("--grid", type=Path, metavar="FILE.png", help="write the uncurated pictures of the prompts")
    aigc.add_argument(
        "--nearest",
        type=Path,
        metavar="FILE.png",
        help="write some pictures, the nearest training picture after each",
    )
    aigc.add_argument("--json", action="store_true", help="print one JSON object")
    aigc.set_defaults(run=run)
    evaluate_gpt.add_arguments(what)


def run(arguments: argparse.Namespace) -> int:
    for path in (arguments.grid, arguments.nearest):
        if path is not None and path.suffix.lower() != ".png":
            raise UserError(f"{path} does not end in .png, and PNG is what is written.")
    from chatbot.aigc.evaluate import evaluate

    with ProgressPrinter() as progress:
        folder, encoder, name = run_async(_folders(arguments.model, progress))
        figures = evaluate(
            folder, encoder, name, arguments.data, arguments.grid, progress.tell, say, nearest=arguments.nearest
        )
    if arguments.json:
        print(json.dumps(figures, ensure_ascii=False, indent=1))
        return 0
    width = max(len(key) for key in figures)
    for key, value in figures.items():
        print(f"{key:{width}}  {value:.4g}" if isinstance(value, float) else f"{key:{width}}  {value}")
    return 0


async def _folders(wanted: str, progress: ProgressPrinter) -> tuple[Path, Path, str]:
    from chatbot.catalog import DEFAULTS
    from chatbot.engines.load_pictures import model_folder
    from chatbot.fetch import fetch
    from chatbot.settings import Settings
    from chatbot.store import open_store

    settings = Settings.load()
    async with open_store(settings) as store:
        folder, name = await model_folder(store.registry, progress.tell, wanted)
    encoder = await fetch(DEFAULTS["encoder"], settings.models_folder, progress.tell)
    return folder, encoder.parent, name
