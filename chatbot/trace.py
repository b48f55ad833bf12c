"""Keeps the trace of what should not have happened where it can be looked at."""

from __future__ import annotations

import time
import traceback

from chatbot import __version__

_HIDDEN: set[str] = set()


def hide(secret: str) -> None:
    """Let `secret` stand in no trace, and in nothing that `without_secrets` is asked about."""
    _HIDDEN.add(secret)


def without_secrets(text: str) -> str:
    """The text with `***` where it holds a secret."""
    for secret in _HIDDEN:
        text = text.replace(secret, "***")
    return text


def keep_trace(error: BaseException) -> str:
    """Append the traceback of `error` to the log in the home; a sentence for the person, who never sees it."""
    from chatbot.settings import home_folder

    path = home_folder() / "error.log"
    what = f"Unexpected {type(error).__name__}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} chatbot {__version__}\n")
            log.write(without_secrets("".join(traceback.format_exception(error))) + "\n")
    except OSError:
        return f"{what}; set CHATBOT_HOME to a folder that can be written to keep a trace of it."
    return f"{what}; this is a bug, and its trace is in {path}."
