"""Names of processes, by which others can tell whether what one of them does is still being done."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import psutil

HEARTBEAT_LOST = timedelta(seconds=15)
_TICKS = "ticks "


@cache
def _machine() -> str:
    """This machine, and within it the set of processes whose numbers mean the same to each other."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def this_process() -> str:
    """A name for this process that no other process has, on any machine, now or later."""
    return _first_seen_name_of(os.getpid())


def name_of(pid: int) -> str:
    """The same for another process of this machine. Raises psutil.NoSuchProcess."""
    return f"{_machine()}|{pid}|{_started(pid)}"


def _started(pid: int) -> str:
    """When a process began: in ticks since the machine did, which no change of its clock moves, where there are such.

    Raises psutil.NoSuchProcess.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return f"{_TICKS}{fields[19]}@{boot[:8]}"  # field 22 of proc(5); the third is the first after the name
    except (OSError, IndexError):
        return str(psutil.Process(pid).create_time())


_first_seen_name_of = cache(name_of)


def is_gone(owner: str | None, heartbeat: datetime | None, now: datetime) -> bool:
    """Whether the process that named itself so (`this_process`) has ended, or not shown itself for too long."""
    if owner is None or heartbeat is None:
        return True
    machine, pid, started = owner.rsplit("|", 2)
    if machine != _machine():
        return now - heartbeat > HEARTBEAT_LOST
    try:
        process = psutil.Process(int(pid))
        # Earlier versions wrote seconds, which follow the clock.
        same = (
            _started(int(pid)) == started if started.startswith(_TICKS) else process.create_time() == float(started)
        )
        # A killed process that nobody has waited for yet is still listed, as a zombie.
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
