"""The `chatbot` command. What is heavy is imported where it is used: `--help` loads next to nothing."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from chatbot import __version__
from chatbot.errors import UserError
from storage.errors import StorageError

Run = Callable[[argparse.Namespace], int]

EPILOG = """With no command, `chatbot` opens the terminal chat; with piped input it answers once.
Exit codes: 0 done, 2 something you can put right, 130 stopped by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a character shows a mark in its place
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    arguments = build_parser().parse_args(argv)
    try:
        return _run(arguments)
    except (UserError, StorageError) as error:
        print(f"chatbot: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        print(f"chatbot: unexpected {type(error).__name__}; {_keep_trace()}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, front ends included."""
    from chatbot.cli import ask, config, conversations, doctor, models
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
    for module in (ask, conversations, models, config, doctor):
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
        return main(["ask"])
    if not sys.stdout.isatty():
        raise UserError('The chat needs a terminal to show itself on; `chatbot ask "…"` prints one reply.')
    from chatbot.frontends import DEFAULT, front_ends

    if DEFAULT not in front_ends():
        raise UserError("The terminal chat is not installed; install chatbot again.")
    return main([DEFAULT])


def _keep_trace() -> str:
    """Write the traceback where it can be looked at; says where."""
    from chatbot.settings import home_folder

    path = home_folder() / "error.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} chatbot {__version__}\n{traceback.format_exc()}\n")
    except OSError:
        return "set CHATBOT_HOME to a folder that can be written to keep a trace of it."
    return f"this is a bug; its trace is in {path}."
