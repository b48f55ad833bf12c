"""What numbers may be given."""

from __future__ import annotations

import argparse

from chatbot.errors import UserError

SEEDS = (0, 2**32)
"""The range of `--seed`: what torch and numpy both take."""


def count(value: str) -> int:
    """Of an argument: a number from 1 on."""
    if not value.isdecimal() or not 1 <= int(value) < 2**40:
        raise argparse.ArgumentTypeError(f"'{value}' is no number from 1 on")
    return int(value)


def within(arguments: argparse.Namespace, **ranges: tuple[float, float]) -> None:
    """Raises UserError where a number that was given is less than the first of its range, or not less than the
    second."""
    for name, (least, most) in ranges.items():
        value = getattr(arguments, name, None)
        if value is not None and not least <= value < most:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} {value:.12g} makes no sense; it is from {least:g} to {most:g}.")
