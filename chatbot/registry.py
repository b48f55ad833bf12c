"""Versions of models: find, fetch, use, promote, roll back, remove."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from chatbot import __version__
from chatbot.catalog import CATALOG, DEFAULTS, CatalogEntry
from chatbot.errors import ModelError
from chatbot.fetch import Progress, fetch, is_fetched, model_file
from chatbot.settings import Settings
from storage.versions import Activation, Kind, Version, Versions

FAKE = Version("gpt", "fake", "1", folder="", checksum="", code_version=__version__, settings={"engine": "fake"})
"""The scripted stand-in: in no list, there by its name."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of `models list`. `state` is the version's, or `available` for one that was never chosen."""

    version: Version
    state: str
    fetched: bool
    size: int | None


class Registry:
    """The one grammar for models of every kind: `name@version`."""

    def __init__(self, versions: Versions, settings: Settings) -> None:
        self._versions = versions
        self._models = settings.models_folder

    async def current(self, kind: Kind = "gpt") -> Version:
        """What answers: the version in use, or the default of the catalog."""
        current = await self._versions.current(kind)
        if current is not None:
            return current
        if kind not in DEFAULTS:
            raise ModelError(f"There is no {kind} model yet.")
        return self._of_catalog(DEFAULTS[kind])

    async def find(self, ref: str) -> Version:
        """The version that `NAME[@VERSION]`, or the path of a GGUF file, names.

        Without a version: the one in use, else the newest that did not fail. A file is registered where it is.

        Raises:
            ModelError: there is none, or the file is not a whole GGUF.
        """
        if ref.lower().endswith(".gguf"):
            return await self._local_file(Path(ref).expanduser().resolve())
        name, _, version = ref.lower().partition("@")
        if name == FAKE.name:
            return FAKE
        rows = [row for row in await self._versions.list() if row.name == name]
        if version:
            rows = [row for row in rows if row.version == version]
        rows.sort(key=lambda row: (row.state == "current", row.state != "failed", row.created))
        if rows:
            return rows[-1]
        for entry in CATALOG:
            if entry.name == name and version in ("", entry.version):
                return self._of_catalog(entry)
        known = {v for row in await self.list() for v in (row.version.name, row.version.ref)}
        close = get_close_matches(ref.lower(), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`chatbot models list` shows what there is."
        raise ModelError(f"There is no model '{ref}'; {hint}")

    async def ready(self, version: Version, progress: Progress) -> Path:
        """The file of a version, fetched where it has to be. Raises ModelError where it is gone."""
        entry = _entry(version)
        if entry is not None:
            return await fetch(entry, self._models, progress)
        path = Path(version.folder, str(version.settings["file"]))
        if not path.is_file():
            raise ModelError(f"The file of {version.ref} is missing: {path}. `chatbot models use` another.")
        return path

    async def list(self, kind: Kind | None = None) -> Sequence[Listed]:
        """Everything registered, then what the catalog has beside it."""
        rows = await self._versions.list(kind)
        listed = []
        for row in rows:
            entry = _entry(row)
            path = Path(row.folder) / row.settings.get("file", "")
            there = is_fetched(entry, self._models) if entry else path.exists()
            size = entry.size if entry else path.stat().st_size if path.is_file() else None
            listed.append(Listed(row, row.state, there, size))
        chosen = {row.kind for row in rows if row.state == "current"}
        for entry in CATALOG:
            if kind in (None, entry.kind) and entry.ref not in {row.ref for row in rows}:
                is_default = DEFAULTS.get(entry.kind) is entry and entry.kind not in chosen
                listed.append(
                    Listed(
                        self._of_catalog(entry),
                        "current" if is_default else "available",
                        is_fetched(entry, self._models),
                        entry.size,
                    )
                )
        return listed

    async def pull(self, ref: str, progress: Progress) -> Path:
        return await self.ready(await self.find(ref), progress)

    async def use(self, ref: str, progress: Progress) -> Version:
        """Let a version answer from now on, fetched first where it has to be. Raises ModelError."""
        version = await self.find(ref)
        if version == FAKE:
            raise ModelError("The fake model is for one run only: --model fake.")
        await self.ready(version, progress)
        if version.ref not in {row.ref for row in await self._versions.list(version.kind)}:
            await self._versions.add(version)
        await self._versions.activate(version.name, version.version, "use")
        return replace(version, state="current")

    async def promote(self, ref: str) -> Version:
        """Let a candidate answer from now on. Raises ModelError where it is none."""
        if "@" not in ref:
            raise ModelError("Say which version to promote: NAME@VERSION.")
        version = await self.find(ref)
        if version.state != "candidate" or version.ref not in {row.ref for row in await self._versions.list()}:
            raise ModelError(f"{version.ref} is no candidate; `chatbot models use {version.ref}` chooses it.")
        await self._versions.activate(version.name, version.version, "promote")
        return replace(version, state="current")

    async def rollback(self, kind: Kind) -> Version:
        """Let the version before the current one answer again. Raises StorageError where there was none."""
        return await self._versions.rollback(kind) or await self.current(kind)

    async def remove(self, ref: str) -> Version:
        """Forget a version and delete what was fetched or trained; a file of the person's own stays.

        Raises ModelError or StorageError where there is none, or it is in use.
        """
        version = await self.find(ref)
        registered = version.ref in {row.ref for row in await self._versions.list()}
        entry = _entry(version)
        if not registered and not (entry and is_fetched(entry, self._models)):
            raise ModelError(f"{version.ref} is not here; there is nothing to remove.")
        if registered:
            await self._versions.remove(version.name, version.version)
        if not version.version.startswith("local"):
            folder = model_file(entry, self._models).parent if entry else Path(version.folder)
            try:
                await asyncio.to_thread(shutil.rmtree, folder)
            except FileNotFoundError:
                pass  # it was not fetched, or the cache has moved since
            except OSError as error:
                raise ModelError(f"Cannot delete {folder}: {error.strerror}.") from None
        return version

    async def history(self, kind: Kind) -> Sequence[Activation]:
        return await self._versions.history(kind)

    def _of_catalog(self, entry: CatalogEntry) -> Version:
        path = model_file(entry, self._models)
        return Version(
            entry.kind,
            entry.name,
            entry.version,
            folder=str(path.parent),
            checksum=entry.sha256,
            code_version=__version__,
            settings={
                "engine": "llamacpp",
                "file": entry.file_name,
                "context_length": entry.context_length,
                "licence": entry.licence,
            },
        )

    async def _local_file(self, path: Path) -> Version:
        try:
            stat = path.stat()
        except OSError as error:
            raise ModelError(f"Cannot read {path}: {error.strerror}.") from None
        seen = {"file": path.name, "size": stat.st_size, "mtime": stat.st_mtime}
        name = path.stem.lower()
        for row in await self._versions.list("gpt"):
            if row.folder == str(path.parent) and seen.items() <= row.settings.items():
                return row
        context_length, checksum = await asyncio.to_thread(_inspect, path)
        taken = {row.version for row in await self._versions.list("gpt") if row.name == name}
        version = Version(
            "gpt",
            name,
            next(v for v in ("local", *(f"local{n}" for n in range(2, 10_000))) if v not in taken),
            folder=str(path.parent),
            checksum=checksum,
            code_version=__version__,
            settings={"engine": "llamacpp", "context_length": context_length, **seen},
        )
        await self._versions.add(version)
        return version


def _entry(version: Version) -> CatalogEntry | None:
    return next((entry for entry in CATALOG if entry.ref == version.ref), None)


def _inspect(path: Path) -> tuple[int, str]:
    """Context length (tokens) and SHA-256 of a GGUF file. Raises ModelError where it is not a whole one."""
    from gguf import GGUFReader

    try:
        fields: dict[str, Any] = GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()
        context_length = int(fields[f"{architecture}.context_length"].contents())
    except (ValueError, KeyError, IndexError, OSError) as error:
        if isinstance(error, OSError):
            raise ModelError(f"Cannot read {path}: {error.strerror}.") from None
        raise ModelError(f"{path} is not a whole GGUF model: it is cut short, damaged or something else.") from None
    with path.open("rb") as file:
        return context_length, hashlib.file_digest(file, "sha256").hexdigest()
