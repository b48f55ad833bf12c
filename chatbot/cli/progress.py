"""Progress on stderr: a bar where there is progress, on a terminal; plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from chatbot.events import Progress as ProgressEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def say(text: str) -> None:
    """One line on stderr; where nobody can read that, nothing is wrong."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):  # what is buffered would be tried again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class ProgressPrinter:
    """Shows the progress it is called with, until it is closed."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._tenths = 0

    def __call__(self, progress: ProgressEvent) -> None:
        if sys.stderr.isatty():
            self._show(progress)
        elif (what := progress.text.partition(":")[0]) != self._what:  # after the colon are figures that change
            self._what, self._tenths = what, 0
            say(progress.text)
        elif progress.fraction is not None and int(progress.fraction * 10) > self._tenths:
            self._tenths = int(progress.fraction * 10)
            say(f"{progress.text}: {self._tenths * 10} %")

    def tell(self, text: str, fraction: float | None = None) -> None:
        """The same, for what reports sentences."""
        self(ProgressEvent(text, fraction))

    def note(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._progress is None:
            say(text)
        else:
            self._progress.console.print(text, markup=False, highlight=False)

    def _show(self, progress: ProgressEvent) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        assert self._task is not None
        self._progress.update(
            self._task,
            description=escape(progress.text),
            total=None if progress.fraction is None else 1.0,
            completed=progress.fraction or 0.0,
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
