"""A retraining in a process of its own, which outlives the process that began it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    """Noted on disk: who asked, the name of the process, and when it was begun, in seconds since 1970."""

    asked: str
    process: str
    moment: float


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
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.alone("begin.lock") as alone:
            if not alone or self._begun() is not None or self.at_work():
                raise UserError("Another retraining is at work; wait for it.")
            self._begin(words, asked)

    def _begin(self, words: Sequence[str], asked: str) -> None:
        threads = str(max(1, cores() // 2))
        with self._said.open("wb") as said, self._progress.open("wb") as progress:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "chatbot", "retrain", *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=progress,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": threads, "CHATBOT_HOME": str(self._home)},
            )
        _put_behind(process.pid)
        begun = _Begun(asked, name_of(process.pid), time.time())
        part = self._note.with_suffix(".partial")
        part.write_text(json.dumps(asdict(begun)), encoding="utf-8")
        part.replace(self._note)

    def at_work(self) -> bool:
        """Whether a retraining of this home is at work, whoever began it, on whatever machine."""
        begun = self._begun()
        if begun is not None and _lives(begun):
            return True
        self._home.mkdir(parents=True, exist_ok=True)
        with self.alone(LOCK, self._home) as alone:
            return not alone

    @contextmanager
    def alone(self, name: str, folder: Path | None = None) -> Iterator[bool]:
        """Hold a lock among all processes, where no other does."""
        try:
            with FileLock((folder or self._folder) / name, timeout=0):
                yield True
        except Timeout:
            yield False

    def progress(self) -> str:
        """What it does just now; empty where it has said nothing yet."""
        return _last_line(self._progress)

    def news(self) -> tuple[str, str] | None:
        """Who is to be told of one that has ended, and what; None where there is nothing to tell.

        Until `told` is called, that stays so.
        """
        begun = self._begun()
        if begun is None or self.at_work():
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
    """Whether it is there, though it may not have taken its lock yet: it starts as slowly as others let it."""
    return not is_gone(begun.process, datetime.fromtimestamp(begun.moment, UTC), datetime.now(UTC))


def _put_behind(pid: int) -> None:
    """Let a process compute only where no other one wants to.

    Linux may share its cores among sessions first (sched(7), autogroup): a priority counts within its session alone,
    and this process has one of its own, so the session needs one too.
    """
    with suppress(psutil.Error):
        psutil.Process(pid).nice(BEHIND)
    if sys.platform == "linux":
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(BEHIND), encoding="ascii")


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("chatbot: ") if lines else ""
