"""The `chatbot` command. What is heavy is imported where it is used: `--help` loads next to nothing."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from chatbot import __version__
from chatbot.cli.progress import say
from chatbot.errors import UserError
from chatbot.trace import keep_trace
from storage.errors import StorageError

Run = Callable[[argparse.Namespace], int]

EPILOG = """With no command, `chatbot` opens the terminal chat; with piped input it answers once.
Exit codes: 0 done, 2 something you can put right, 130 stopped by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open as long as we run
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a character shows a mark in its place
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _command(words)
        finally:
            sys.stdout.flush()  # here, where what goes wrong with it can still be said
    except (UserError, StorageError) as error:
        say(f"chatbot: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        _leave(sys.stdout)
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            say(f"chatbot: {keep_trace(error)}")
            return 1
        _leave(sys.stdout)
        say(f"chatbot: The output cannot be written: {error.strerror}.")
        return 2
    except Exception as error:
        say(f"chatbot: {keep_trace(error)}")
        return 1


def _command(words: list[str]) -> int:
    if any("\ud800" <= character <= "\udfff" for word in words for character in word):
        raise UserError("The command line is not UTF-8 text; check what it was pasted from.")
    return _run(build_parser().parse_args(words))


def _leave(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: it cannot be written, and would be tried again at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, front ends included."""
    from chatbot.cli import ask, config, conversations, doctor, evaluate, imagine, models, retrain, train
    from chatbot.frontends import front_ends

    parser = argparse.ArgumentParser(
        prog="chatbot",
        description="Talk to a local model in the terminal.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"chatbot {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, front_end in front_ends().items():
        _add(commands, name, front_end.HELP, front_end.add_arguments, front_end.run)
    for module in (ask, imagine, conversations, models, train, retrain, evaluate, config, doctor):
        name = module.__name__.rpartition(".")[2]
        _add(commands, name, module.HELP, module.add_arguments, module.run)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Run,
) -> None:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run)
    add_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    run: Run | None = arguments.run
    if run is not None:
        return run(arguments)
    if not sys.stdin.isatty():
        return _command(["ask"])
    from chatbot.frontends import DEFAULT, front_ends

    if DEFAULT not in front_ends():
        raise UserError("The terminal chat is not installed; install chatbot again.")
    return _command([DEFAULT])
