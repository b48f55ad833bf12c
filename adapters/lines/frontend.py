"""Registers plain lines as `chatbot lines`; imports nothing heavy before it runs."""

from __future__ import annotations

import argparse

HELP = "chat in plain lines over stdin and stdout, for scripts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chat", metavar="NAME", default="main", help="which chat: each goes on with its own")
    parser.add_argument("--model", metavar="NAME", help="NAME[@VERSION], or the path of a GGUF file")


def run(arguments: argparse.Namespace) -> int:
    """Run until stdin ends. Raises UserError or StorageError where it cannot start."""
    from adapters.lines.lines import talk_in_lines
    from chatbot.cli.run import run_async
    from chatbot.settings import Settings

    run_async(talk_in_lines(Settings.load(model=arguments.model), arguments.chat))
    return 0
