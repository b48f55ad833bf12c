"""Registers the Telegram bot as `chatbot telegram`; imports nothing heavy before it runs."""

from __future__ import annotations

import argparse

HELP = "run the Telegram bot"
LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="NAME[@VERSION], or the path of a GGUF file")
    parser.add_argument("--log", choices=LEVELS, default="info", help="what is told on stderr, a JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal ends it. Raises UserError or StorageError where it cannot start."""
    from adapters.telegram.bot import run_bot
    from chatbot.cli.run import run_async
    from chatbot.settings import Settings

    run_async(run_bot(Settings.load(model=arguments.model), arguments.log))
    return 0
