"""`chatbot doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import select
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from chatbot import __version__
from chatbot.errors import UserError
from chatbot.terminal import graphics
from storage.errors import StorageError

if TYPE_CHECKING:
    from chatbot.settings import Settings
    from storage.versions import Version

HELP = "say what is installed, what is missing, and what to do about it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 where nothing is wrong, 2 where something is that the person can put right."""
    from chatbot.settings import Settings

    wrong = 0
    for fine, subject, finding in _findings(Settings.load()):
        print(f"{'ok ' if fine else '!! '} {subject:10} {finding}", flush=True)
        wrong += not fine
    return 2 if wrong else 0


def _findings(settings: Settings) -> Iterator[tuple[bool, str, str]]:
    yield True, "chatbot", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}"
    yield from _packages()
    yield _machine()
    yield _gpu()
    yield True, "settings", f"home {settings.home}, models {settings.models_folder}"
    yield from asyncio.run(_store(settings))
    yield _terminal()


def _packages() -> Iterator[tuple[bool, str, str]]:
    missing, present = [], []
    for requirement in requires("chatbot") or ():
        name = re.split(r"[^\w-]", requirement)[0]
        if "extra ==" in requirement:
            continue
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield False, "packages", f"{', '.join(missing)} missing; install chatbot again (`make chat`, or pip)"
    yield True, "packages", ", ".join(present)


def _machine() -> tuple[bool, str, str]:
    import psutil

    memory = psutil.virtual_memory()
    return True, "machine", f"{os.cpu_count()} cores, {memory.total / 1e9:.0f} GB ({memory.available / 1e9:.0f} free)"


def _gpu() -> tuple[bool, str, str]:
    try:
        import torch
    except ImportError as error:
        return False, "gpu", f"torch does not load ({error}); install chatbot again"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return True, "gpu", ", ".join(names)
    if torch.backends.mps.is_available():
        return True, "gpu", "Apple, through Metal"
    return True, "gpu", "none; chatting does without, training is slow"


async def _store(settings: Settings) -> list[tuple[bool, str, str]]:
    from chatbot.store import open_store

    findings = []
    try:
        async with open_store(settings) as store:
            findings.append((True, "database", f"{settings.shown_database}, at the newest schema"))
            current = (await store.registry.current("gpt")).ref
            for row in await store.registry.list():
                used = ", answers" if row.version.ref == current else ""
                there = "here" if row.fetched else _missing(row.version)
                fine = row.fetched or not used or "licence" in row.version.settings
                findings.append((fine, "model", f"{row.version.ref} ({row.version.kind}{used}): {there}"))
            if settings.model:
                await store.registry.find(settings.model)
    except (StorageError, UserError) as error:
        findings.append((False, "database" if isinstance(error, StorageError) else "model", str(error)))
    return findings


def _missing(version: Version) -> str:
    if "licence" in version.settings:  # the catalog or the hub has it
        return f"not here; `chatbot models pull {version.name}` fetches it"
    return f"its file is gone from {version.folder}; `chatbot models remove {version.ref}` forgets it"


def _terminal() -> tuple[bool, str, str]:
    name = os.environ.get("TERM_PROGRAM") or os.environ.get("TERM") or "unknown"
    columns, lines = shutil.get_terminal_size()
    size = f"{name}, {columns}x{lines}"
    if not sys.stdout.isatty():
        return True, "terminal", "none: the output goes elsewhere"
    if graphics(os.environ) != "cells":
        return True, "terminal", f"{size}; shows pictures"
    if _has_sixel():
        return True, "terminal", f"{size}; shows pictures where CHATBOT_GRAPHICS=sixel is set"
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return True, "terminal", f"{size}; shows pictures as coloured half blocks"
    return True, "terminal", f"{size}; few colours: pictures would be coarse (COLORTERM=truecolor where it has more)"


def _has_sixel() -> bool:
    """Ask the terminal for its attributes (DA1); 4 among them stands for sixel graphics."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, termios.error):
        return False
    try:
        tty.setcbreak(descriptor)
        print("\x1b[c", end="", flush=True)
        answer = b""
        while select.select([descriptor], [], [], 0.3)[0] and not answer.endswith(b"c"):
            answer += os.read(descriptor, 64)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
    return b"4" in answer.strip(b"\x1b[?c").split(b";")
