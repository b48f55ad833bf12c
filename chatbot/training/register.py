"""A trained model becomes a candidate of the registry."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chatbot import __version__
from chatbot.catalog import FETCHABLE
from chatbot.errors import UserError
from chatbot.registry import FAKE, Registry
from storage.versions import Kind, Version


async def register(
    registry: Registry,
    home: Path,
    kind: Kind,
    run: str,
    model: Path,
    *,
    checksum_of: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    fingerprint: str,
    parent: str | None = None,
    again: bool = False,
) -> Version:
    """Copy the folder `model` into `home`, and register it, named for its run, with the next free number.

    Args:
        checksum_of: the file of the model whose SHA-256 stands for it.
        settings: what an engine needs to load it, and how it was trained.
        fingerprint: of the data.
        parent: the version it was trained from.
        again: whether the same weights make another version; else the one there is is given, since a run that had
            ended and is gone on with makes nothing new.

    Raises:
        UserError: it cannot be copied; it stays where it is.
    """
    name = re.sub(r"[^\w.-]+", "-", run.lower()).strip("-.") or "run"
    if name in {FAKE.name, *(entry.name for entry in FETCHABLE)}:
        name += "-run"
    taken = [row.version for row in await registry.list() if row.version.name == name]
    number = 1 + max((int(one.version) for one in taken if one.version.isdecimal()), default=0)
    models = home / "models" / name
    try:
        checksum = await asyncio.to_thread(sha256_of, model / checksum_of)
        for one in taken:
            if not again and one.checksum == checksum and Path(one.folder, checksum_of).exists():
                return one
        while True:
            folder = models / str(number)
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:  # of a run that registers now, or was killed as it did
                number += 1
        await asyncio.to_thread(shutil.copytree, model, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"The model cannot be copied to {models}: {error.strerror}. It stays in {model}.") from None
    version = Version(
        kind,
        name,
        str(number),
        folder=str(folder),
        checksum=checksum,
        code_version=__version__,
        parent=parent,
        data_fingerprint=fingerprint,
        figures=dict(figures),
        settings={**settings, "run": run},
    )
    await registry.add(version)
    return version


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
