"""A retraining in a process of its own, which goes on whatever becomes of the process that began it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from chatbot.engines.llamacpp_server import cores
from chatbot.errors import UserError
from storage.processes import is_gone, name_of

LOCK = "retrain.lock"
BEHIND = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 19)
"""The least urgent work: Windows has a class for it, others a number."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """Noted on disk: who asked, and the name of the process."""

    asked: str
    process: str


class Background:
    """Begins a retraining for somebody who is told its end, by this process or by a later one.

    Args:
        home: where one at a time is at work.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "retrain"
        self._note = self._folder / "begun.json"
        self._said = self._folder / "said.txt"
        self._progress = self._folder / "progress.txt"

    def start(self, words: Sequence[str], asked: str) -> None:
        """Begin `chatbot retrain WORDS`, with few threads and behind all other work; its end is told to `asked`.

        Raises:
            UserError: another one is at work, or has ended and nobody was told yet.
        """
        if self._note.exists() or self.at_work():
            raise UserError("Another retraining is at work; wait for it.")
        self._folder.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, cores() // 2))
        with self._said.open("wb") as said, self._progress.open("wb") as progress:
            process = subprocess.Popen(
                [sys.executable, "-m", "chatbot", "retrain", *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=progress,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": threads, "CHATBOT_HOME": str(self._home)},
            )
        with suppress(psutil.Error):
            psutil.Process(process.pid).nice(
                getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 19)
            )  # a name that Windows alone has
        self._note.write_text(json.dumps(asdict(_Begun(asked, name_of(process.pid)))), encoding="utf-8")

    def at_work(self) -> bool:
        """Whether a retraining of this home is at work, whoever began it."""
        begun = self._begun()
        if begun is not None and _lives(begun):
            return True
        self._home.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._home / LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def progress(self) -> str:
        """What it does just now; empty where it has said nothing yet."""
        return _last_line(self._progress)

    def news(self) -> tuple[str, str] | None:
        """Who is to be told of one that has ended, and what; None where there is nothing to tell.

        Until `told` is called, that stays so.
        """
        begun = self._begun()
        if begun is None or _lives(begun):
            return None
        return begun.asked, _last_line(self._said) or self.progress() or "The retraining ended without a word."

    def told(self) -> None:
        """Whoever asked knows."""
        self._note.unlink(missing_ok=True)

    def _begun(self) -> _Begun | None:
        try:
            return _Begun(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def _lives(begun: _Begun) -> bool:
    now = datetime.now(UTC)
    return not is_gone(begun.process, now, now)


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("chatbot: ") if lines else ""
