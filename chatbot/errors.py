"""What a person can mend: one sentence saying what is wrong and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the person can put right; its text is shown as it is, with exit code 2."""


class ModelError(UserError):
    """A model that is unknown, missing, broken or does not start."""


class MessageError(UserError):
    """A message that cannot be sent as it is."""


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a module that is run by itself: 0, or 2 and one sentence where a person's mistake ended it."""
    try:
        work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
