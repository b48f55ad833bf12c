"""Versions of models: find, fetch, use, promote, roll back, remove.

A model is named in one of these ways, tried in this order:

- `NAME@URL`: a model behind an OpenAI-compatible endpoint, `llama3@http://localhost:11434/v1`;
- the path of a GGUF file, or of a folder of transformers (with a `/` in it), that lies on the disk;
- `NAME[@VERSION]`: one that is registered, or in the catalog;
- `OWNER/REPO[:FILE.gguf][@REVISION]`: one of the Hugging Face hub.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from chatbot import __version__, hub
from chatbot.catalog import CATALOG, DEFAULTS, FETCHABLE, TEACHERS, Bundled, CatalogEntry
from chatbot.engines.hf import bytes_in_memory
from chatbot.errors import ModelError
from chatbot.fetch import Tell, fetch, is_fetched, model_file
from chatbot.local_models import inspect_file, inspect_folder
from chatbot.settings import Settings
from storage.versions import Activation, Kind, Version, Versions

FAKE = Version("gpt", "fake", "1", folder="", checksum="", code_version=__version__, settings={"engine": "fake"})
"""The scripted stand-in: in no list, there by its name."""


Announce = Callable[[str], None]

_ENDPOINT = re.compile(r"(?P<model>.+)@(?P<url>https?://.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of `models list`. `state` is the version's, or `available` for one that was never chosen; `size` in
    bytes; what answers from afar is neither here nor has a size."""

    version: Version
    state: str
    fetched: bool
    size: int | None


class Registry:
    """The one grammar for models of every kind: `name@version`."""

    def __init__(self, versions: Versions, settings: Settings) -> None:
        self._versions = versions
        self._models = settings.models_folder
        self._home = settings.home

    async def current(self, kind: Kind = "gpt") -> Version:
        """What answers: the version in use, or the default of the catalog."""
        current = await self._versions.current(kind)
        if current is not None:
            return current
        if kind not in DEFAULTS:
            raise ModelError(f"There is no {kind} model yet.")
        return self._of_catalog(DEFAULTS[kind])

    async def find(self, ref: str) -> Version:
        """The version that a name means (see above); a file or folder is registered where it is.

        Without a version: the one in use, else the newest that did not fail.

        Raises:
            ModelError: there is none, it is damaged, or the hub cannot be reached.
        """
        if match := _ENDPOINT.fullmatch(ref):
            return _behind(match["model"], match["url"].rstrip("/"))
        path = Path(ref).expanduser()
        is_file = ref.lower().endswith(".gguf")
        if (is_file and (path.exists() or ":" not in ref)) or ("/" in ref and path.is_dir()):
            return await self._local(path.resolve())
        name, _, version = ref.lower().partition("@")
        if name == FAKE.name:
            return FAKE
        known_rows = await self._versions.list()
        rows = [row for row in known_rows if row.name.lower() == name]
        if not rows:  # a repository that has one file of a model, and nothing else
            rows = [
                row for row in known_rows if row.settings.get("repo", "").lower() == name and row.settings.get("only")
            ]
        if version:
            rows = [row for row in rows if row.version == version]
        rows.sort(key=lambda row: (row.state == "current", row.state != "failed", row.created))
        if rows:
            return rows[-1]
        for entry in CATALOG:
            if entry.name == name and version in ("", entry.version):
                return self._of_catalog(entry)
        if hub.NAME.fullmatch(ref):
            return await hub.look_up(ref, self._models)
        known = {v for row in await self.list() for v in (row.version.name, row.version.ref)}
        close = get_close_matches(ref.lower(), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`chatbot models list` shows what there is."
        raise ModelError(f"There is no model '{ref}'; {hint}")

    def path(self, version: Version) -> Path:
        """The file or folder of a version, fetched or not."""
        return Path(self.folder(version), version.settings.get("file", ""))

    def folder(self, version: Version) -> Path:
        """The folder of a version: of one of the catalog, where this installation has it."""
        entry = _entry(version)
        return model_file(entry, self._models).parent if entry is not None else Path(version.folder)

    async def pulled(self, version: Version, tell: Tell, announce: Announce | None = None) -> Version:
        """A version that is here now: fetched, read and registered where it had to be.

        `announce` hears what it is before it is fetched.

        Raises:
            ModelError: it cannot be fetched, or is gone.
        """
        if not self._is_here(version, entry := _entry(version)) and announce is not None and version.folder:
            announce(summary(version))
        if entry is not None:
            await fetch(entry, self._models, tell)
            return version
        if "repo" in version.settings:
            if not hub.is_here(version):
                await hub.fetch(version, tell)
            if version.settings["engine"] == "llamacpp" and "chat_template" not in version.settings:
                found, _ = await asyncio.to_thread(inspect_file, self.path(version))
                version = replace(version, settings=version.settings | found | {"file": version.settings["file"]})
            return await self._versions.add_or_find(version)
        if version.folder and not self.path(version).exists():
            raise ModelError(
                f"The file of {version.ref} is missing: {self.path(version)}. `chatbot models use` another."
            )
        return version

    async def list(self, kind: Kind | None = None) -> Sequence[Listed]:
        """Everything registered, then what the catalog has beside it."""
        rows = await self._versions.list(kind)
        listed = []
        for row in rows:
            entry = _entry(row)
            listed.append(Listed(row, row.state, self._is_here(row, entry), _size(row, entry)))
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

    async def pull(
        self, ref: str, tell: Tell, announce: Announce | None = None, *, trust_remote_code: bool = False
    ) -> Version:
        """Fetch a model, a teacher too, and register it where it is not one of the catalog.

        With `trust_remote_code`, Python code that lies beside the weights is fetched too, and run from now on.

        Raises ModelError.
        """
        version = self._teacher(ref) or await self.find(ref)
        if version == FAKE:
            raise ModelError("The fake model is for one run only: --model fake.")
        if trust_remote_code and "repo" in version.settings:
            name = f"{version.settings['repo']}@{version.settings['revision']}"
            version = await hub.look_up(name, self._models, trust_remote_code=True)
        version = await self.pulled(version, tell, announce)
        if _entry(version) is None:
            version = await self._versions.add_or_find(version)
        if trust_remote_code:
            version = replace(version, settings=version.settings | {"trust_remote_code": True})
            await self._versions.set_settings(version)
        return version

    async def use(
        self,
        ref: str,
        tell: Tell,
        announce: Announce | None = None,
        *,
        trust_remote_code: bool = False,
        check: Callable[[Version], Awaitable[None]] | None = None,
    ) -> Version:
        """Let a version answer from now on, fetched first where it has to be.

        What `check` raises about it keeps the one before in use. Raises ModelError.
        """
        if self._teacher(ref) is not None:
            raise ModelError(f"{ref} helps to train picture models; it answers nothing.")
        version = await self.pull(ref, tell, announce, trust_remote_code=trust_remote_code)
        version = await self._versions.add_or_find(version)
        if check is not None:
            await check(version)
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

    async def is_promoted(self, version: Version) -> bool:
        """Whether it answers because it was promoted: then it has to show first that it can speak."""
        return await self._versions.is_promoted(version)

    async def fail(self, version: Version) -> bool:
        """Mark a promoted version as failed and roll back from it; False where a person chose it, or it is gone."""
        return await self._versions.fail(version)

    async def remove(self, ref: str) -> Version:
        """Forget a version and delete what was fetched or trained; a file of the person's own stays.

        Raises ModelError or StorageError where there is none, or it is in use.
        """
        version = self._teacher(ref) or await self.find(ref)
        registered = version.ref in {row.ref for row in await self._versions.list()}
        entry = _entry(version)
        if entry is not None and isinstance(entry.source, Bundled):
            raise ModelError(f"{version.ref} is part of chatbot; it cannot be removed.")
        if not registered and not (entry and is_fetched(entry, self._models)):
            raise ModelError(f"{version.ref} is not here; there is nothing to remove.")
        in_use = version.kind in DEFAULTS and version.ref == (await self.current(version.kind)).ref
        if not registered and in_use:
            raise ModelError(f"{version.ref} is in use; `chatbot models use` another first.")
        if registered:
            await self._versions.remove(version.name, version.version)
        folder = self.folder(version)
        if any(ours in folder.parents for ours in (self._models, self._home)):
            try:
                await asyncio.to_thread(shutil.rmtree, folder)
            except FileNotFoundError:
                pass  # it was not fetched, or the cache has moved since
            except OSError as error:
                raise ModelError(f"Cannot delete {folder}: {error.strerror}.") from None
        return version

    async def add(self, version: Version) -> None:
        """Register a version that was trained here, as a candidate. Raises StorageError where its name is taken."""
        await self._versions.add(version)

    async def history(self, kind: Kind) -> Sequence[Activation]:
        return await self._versions.history(kind)

    def _teacher(self, ref: str) -> Version | None:
        """What is fetched and removed by its name, and found nowhere else."""
        return next((self._of_catalog(entry) for entry in TEACHERS if ref.lower() in (entry.name, entry.ref)), None)

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
                "engine": entry.engine,
                "file": entry.file_name,
                "context_length": entry.context_length,
                "licence": entry.licence,
            }
            | ({"base": entry.base} if entry.base else {}),
        )

    def _is_here(self, version: Version, entry: CatalogEntry | None) -> bool:
        if entry is not None:
            return is_fetched(entry, self._models)
        if "repo" in version.settings:
            return hub.is_here(version)
        return bool(version.folder) and Path(version.folder, version.settings.get("file", "")).exists()

    async def _local(self, path: Path) -> Version:
        """A file or folder of the person's own, read through once and known again as long as it stays the same."""
        try:
            stat = (path / "config.json" if path.is_dir() else path).stat()
            if not (path.is_dir() or path.is_file()):
                raise ModelError(f"{path} is no file.")
        except OSError as error:
            raise ModelError(f"Cannot read {path}: {error.strerror}.") from None
        folder = path if path.is_dir() else path.parent
        seen = {"size": stat.st_size, "mtime": stat.st_mtime} | ({} if path.is_dir() else {"file": path.name})
        for row in await self._versions.list("gpt"):
            if row.folder == str(folder) and seen.items() <= row.settings.items():
                return row
        settings, checksum = await asyncio.to_thread(inspect_folder if path.is_dir() else inspect_file, path)
        name = re.sub(r"[^\w.-]+", "-", path.name.lower().removesuffix(".gguf")).strip("-") or "model"
        if name in {FAKE.name, *(entry.name for entry in FETCHABLE)}:
            name += "-file"
        for number in range(1, 10_000):
            version = Version(
                "gpt",
                name,
                "local" if number == 1 else f"local{number}",
                folder=str(folder),
                checksum=checksum,
                code_version=__version__,
                settings=settings | seen,
            )
            taken = await self._versions.add_or_find(version)
            if taken.folder == version.folder and taken.settings == version.settings:
                return taken
        raise ModelError(f"There are too many versions of {name}; `chatbot models remove` some.")


def summary(version: Version) -> str:
    """What a model is, and whether it fits this machine."""
    size = _size(version, _entry(version)) or 0
    weights = bytes_in_memory(Path(version.folder), size) if version.settings.get("engine") == "hf" else size
    needed, free = 1.2 * weights, psutil.virtual_memory().available
    context = version.settings.get("context_length")
    return (
        f"{version.ref}: {size / 1e6:,.0f} MB, context {f'{context:,} tokens' if context else 'unknown'}, "
        f"licence {version.settings.get('licence', 'unknown')}; it needs about {needed / 1e9:.1f} GB of memory, "
        f"{free / 1e9:.1f} GB are free: it {'fits' if needed < free else 'does NOT fit'} this machine."
    )


def _size(version: Version, entry: CatalogEntry | None) -> int | None:
    if entry is not None:
        return entry.size
    if "repo" in version.settings:
        return hub.size(version)
    path = Path(version.folder, version.settings.get("file", ""))
    if not version.folder or not path.exists():
        return None
    return path.stat().st_size if path.is_file() else sum(part.stat().st_size for part in path.glob("*.safetensors"))


def _behind(model: str, url: str) -> Version:
    """A model behind an endpoint. Raises ModelError where its URL holds a password: the database would keep it."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise ModelError("The URL of an endpoint holds no key; set CHATBOT_OPENAI_API_KEY instead.")
    settings = {"engine": "openai", "model": model, "url": url}
    return Version("gpt", model, url, folder="", checksum="", code_version=__version__, settings=settings)


def _entry(version: Version) -> CatalogEntry | None:
    return next((entry for entry in FETCHABLE if entry.ref == version.ref), None)
