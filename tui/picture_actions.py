"""Does what a person wants done with a picture: keep it as a file, or look at it in another program."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chatbot.errors import UserError
from tui.picture import Shown


def file_name(shown: Shown) -> str:
    """The prompt as the name of a file."""
    return (re.sub(r"\W+", "-", shown.prompt).strip("-")[:40] or "picture") + ".png"


async def save(shown: Shown, path: Path) -> None:
    """Raises UserError where that cannot be."""
    try:
        await asyncio.to_thread(shutil.copyfile, shown.path, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None


async def show(shown: Shown) -> bool:
    """Open it in the program that the desktop has for pictures; False where there is none."""
    command = _opener()
    if command is None:
        return False
    # Attachments have no name that a desktop would know a picture by.
    folder = Path(tempfile.gettempdir()) / f"chatbot-{os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / f"{shown.seed}-{file_name(shown)}"
    await save(shown, copy)
    await asyncio.to_thread(
        subprocess.Popen,
        [*command, str(copy)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True


def _opener() -> list[str] | None:
    if sys.platform == "win32":
        return ["cmd", "/c", "start", ""]
    if sys.platform == "darwin":
        return ["open"]
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    return ["xdg-open"] if shutil.which("xdg-open") else None
