"""A trained model becomes a candidate of the registry."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot import __version__
from chatbot.aigc.model import WEIGHTS
from chatbot.catalog import FETCHABLE
from chatbot.errors import UserError
from chatbot.registry import Registry
from storage.versions import Version

if TYPE_CHECKING:
    from chatbot.aigc.train import Outcome


async def register(registry: Registry, home: Path, outcome: Outcome, run: str) -> Version:
    """Copy the model into `home` and register it, named for its run, with the next free number as its version."""
    name = re.sub(r"[^\w.-]+", "-", run.lower()).strip("-.") or "pictures"
    if name in {entry.name for entry in FETCHABLE}:
        name += "-run"
    taken = {row.version.ref for row in await registry.list()}
    number = next(n for n in range(1, len(taken) + 2) if f"{name}@{n}" not in taken)
    folder = home / "models" / name / str(number)
    try:
        await asyncio.to_thread(shutil.copytree, outcome.model, folder, dirs_exist_ok=True)
        checksum = await asyncio.to_thread(lambda: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    except OSError as error:
        raise UserError(
            f"The model cannot be copied to {folder}: {error.strerror}. It stays in {outcome.model}."
        ) from None
    version = Version(
        "aigc",
        name,
        str(number),
        folder=str(folder),
        checksum=checksum,
        code_version=__version__,
        data_fingerprint=outcome.fingerprint,
        figures=outcome.figures,
        settings={"engine": "aigc", "file": WEIGHTS, "run": run},
    )
    await registry.add(version)
    return version
