"""What runs beside the tests."""

from __future__ import annotations

import psutil


def engines_of(pid: int) -> list[psutil.Process]:
    """The processes of models that a process has started; it may have started others."""
    started = psutil.Process(pid).children(recursive=True)
    return [process for process in started if any("chatbot.engines" in part for part in process.cmdline())]
