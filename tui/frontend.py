"""Registers the terminal chat as `chatbot chat`; imports nothing heavy before it runs."""

from __future__ import annotations

import argparse
import os
import sys

from chatbot.errors import UserError

HELP = "open the terminal chat (what `chatbot` alone does)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--conversation", metavar="ID", help="open this conversation instead of the last one")
    where.add_argument("--new", action="store_true", help="begin a new conversation")
    parser.add_argument("--model", metavar="NAME", help="NAME[@VERSION], or the path of a GGUF file")
    parser.add_argument("--system", metavar="TEXT", help="system prompt of new conversations")


def run(arguments: argparse.Namespace) -> int:
    """Run until the person leaves. Raises UserError or StorageError where the chat cannot open."""
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if not terminal and not os.environ.get("TEXTUAL_DRIVER"):  # textual-serve has its own
        raise UserError('The chat needs a terminal to show itself on; `chatbot ask "…"` prints one reply.')
    from tui.app import run_app

    flags = {"model": arguments.model, "system": arguments.system}
    return run_app(flags, conversation=arguments.conversation, new=arguments.new)
