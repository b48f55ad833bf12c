"""Does what a person wants done with a picture: keep it as a file, or look at it in another program."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
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
    named = _folder() / f"{shown.path.name[:8]}.png"  # attachments have no name that a desktop knows a picture by
    named.unlink(missing_ok=True)
    if sys.platform.startswith("linux"):
        named.symlink_to(shown.path.resolve())  # what is forgotten is then gone there too
    else:
        await save(shown, named)
    await asyncio.to_thread(
        subprocess.Popen,
        [*command, str(named)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True


@cache
def _folder() -> Path:
    """Of this process, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="chatbot-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _opener() -> list[str] | None:
    if sys.platform == "win32":
        return ["cmd", "/c", "start", ""]
    if sys.platform == "darwin":
        return ["open"]
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    return ["xdg-open"] if shutil.which("xdg-open") else None
