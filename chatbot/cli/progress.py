"""Notices on stderr: a bar where there is progress, on a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from chatbot.events import Notice

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class NoticePrinter:
    """Shows the notices it is called with, until it is closed."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._text = ""
        self._tenths = 0

    def __call__(self, notice: Notice) -> None:
        if sys.stderr.isatty():
            self._show(notice)
        elif notice.text != self._text:
            self._text, self._tenths = notice.text, 0
            print(notice.text, file=sys.stderr, flush=True)
        elif notice.fraction is not None and int(notice.fraction * 10) > self._tenths:
            self._tenths = int(notice.fraction * 10)
            print(f"{notice.text}: {self._tenths * 10} %", file=sys.stderr, flush=True)

    def tell(self, text: str, fraction: float | None = None) -> None:
        """The same, for what reports sentences."""
        self(Notice(text, fraction))

    def _show(self, notice: Notice) -> None:
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
            description=escape(notice.text),
            total=None if notice.fraction is None else 1.0,
            completed=notice.fraction or 0.0,
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> NoticePrinter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
