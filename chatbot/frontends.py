"""Front ends join the `chatbot` command through entry points, so that the core never imports them."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import entry_points
from typing import Protocol, cast

GROUP = "chatbot.frontends"
DEFAULT = "chat"
"""The front end that opens on a terminal when no command is given."""


class FrontEnd(Protocol):
    """A module registered in the entry-point group `chatbot.frontends`; the entry's name is its command.

    It is imported for every `chatbot --help`: what is heavy is imported inside `run`.
    """

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's flags."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Run until the person leaves; returns the exit code. Raises UserError for what they can mend."""
        ...


def front_ends() -> dict[str, FrontEnd]:
    """The installed front ends by name, in the order of their names.

    One that does not load, as a third party's may not, is named on stderr and left out.
    """
    found: dict[str, FrontEnd] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found[point.name] = cast(FrontEnd, point.load())
        except Exception as error:
            print(f"chatbot: the front end '{point.name}' does not load: {error}", file=sys.stderr)
    return found
