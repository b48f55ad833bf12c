"""Models of the Hugging Face hub, or of a mirror of it (`HF_ENDPOINT`): looked up, then fetched at one revision."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from chatbot import __version__
from chatbot.child import Child
from chatbot.errors import ModelError
from chatbot.fetch import Tell
from storage.versions import Version

NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(:(?P<file>[^@:]+\.gguf))?(@(?P<revision>[\w./-]+))?", re.IGNORECASE)
"""OWNER/REPO[:FILE.gguf][@REVISION]"""

_WEIGHTS = re.compile(r"(?!consolidated)[^/]*\.safetensors", re.IGNORECASE)
"""As transformers reads them: what lies deeper, or consolidated, is the same once more for other programs."""
_FILES = re.compile(rf"({_WEIGHTS.pattern}|[^/]*\.(json|jinja|txt)|tokenizer\.model)", re.IGNORECASE)
_PART = re.compile(r"(?P<stem>.+-)\d{5}-of-(?P<count>\d{5})(?P<ending>\.gguf)", re.IGNORECASE)
_CODE = re.compile(r"[^/]*\.py")


async def look_up(name: str, models: Path, *, trust_remote_code: bool = False) -> Version:
    """What the hub has under a `NAME`, pinned to the commit it stands at now.

    Its settings say the files with their sizes and checksums, context length, licence and engine.

    Args:
        models: folder of fetched models; config.json is put there to be read.
        trust_remote_code: fetch Python code that lies beside the weights too, to be run.

    Raises:
        ModelError: there is none, it may not be read, its form is not known, or the hub cannot be reached.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"'{name}' is no model of the hub; that is OWNER/REPO[:FILE.gguf][@REVISION].")
    return await asyncio.to_thread(
        _look_up, match["repo"], match["file"], match["revision"], models, trust_remote_code
    )


def is_here(version: Version) -> bool:
    """Whether every file of a version of the hub is on the disk."""
    files: dict[str, Any] = version.settings["files"]
    paths = [(Path(version.folder, name), known["size"]) for name, known in files.items()]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def size(version: Version) -> int:
    """Bytes of all its files."""
    return sum(int(known["size"]) for known in version.settings["files"].values())


async def fetch(version: Version, tell: Tell) -> None:
    """Fetch the files of a version; what a killed download left is gone on with.

    Raises:
        ModelError: no network, no room on the disk, or not the content that the hub promised.
    """
    folder, total = Path(version.folder), size(version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = total - _on_disk(folder)
        if (free := shutil.disk_usage(folder).free) < missing:
            raise ModelError(
                f"Cannot fetch {version.ref}: it needs {missing / 1e6:,.0f} MB more in {folder}, and "
                f"{free / 1e6:,.0f} MB are free. Make room, or set CHATBOT_CACHE to another folder."
            )
    except OSError as error:
        raise ModelError(f"Cannot fetch {version.ref} into {folder}: {error.strerror or error}.") from None
    request = {key: version.settings[key] for key in ("repo", "revision", "files")} | {"folder": str(folder)}
    child = await Child.start("chatbot.hub_download", request)
    answer = asyncio.create_task(child.receive())
    try:
        while not answer.done():
            tell(f"Fetching {version.ref} ({total / 1e6:,.0f} MB)", min(1.0, _on_disk(folder) / max(1, total)))
            await asyncio.wait([answer], timeout=0.3)
        said = answer.result() or {}
    finally:
        answer.cancel()
        await child.close()
    if not said.get("done") or not is_here(version):
        raise ModelError(said.get("error") or f"Cannot fetch {version.ref}: the download ended early; try again.")


@contextmanager
def said_to_a_person(name: str) -> Iterator[None]:
    """Turns what the hub's library raises into one sentence."""
    import httpx  # what huggingface_hub 1 raises, which the oldest transformers that we take asks for
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise ModelError(f"{name} wants its terms accepted: do so on its page, and set HF_TOKEN.") from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"The hub has no such revision of {name}.") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"The hub has no model {name}, or does not show it to you (HF_TOKEN).") from None
    except errors.EntryNotFoundError:
        raise ModelError(
            f"A file of {name} is gone from the hub; `chatbot models list` shows what is here."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise ModelError(f"The hub refused {name} ({status}); try again later.") from None
    except (errors.OfflineModeIsEnabled, httpx.HTTPError, httpx2.HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise ModelError(f"There is no room left on the disk for {name}; make room and try again.") from None
        raise ModelError(f"The hub cannot be reached for {name}; check the network and HF_ENDPOINT.") from None
    except ValueError as error:
        raise ModelError(f"The hub sent what is not {name}: {str(error).splitlines()[0]}") from None


def _look_up(repo: str, file: str | None, revision: str | None, models: Path, trust_remote_code: bool) -> Version:
    from huggingface_hub import HfApi, hf_hub_download

    with said_to_a_person(repo):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    ggufs = sorted({_parts(name)[0] for name in there if name.lower().endswith(".gguf")})
    has_weights = any(_WEIGHTS.fullmatch(name) for name in there)
    only = not has_weights and len(ggufs) == 1
    if file is None and only:
        file = ggufs[0]
    if file is None and not has_weights:
        if ggufs:
            raise ModelError(
                f"{repo} has several GGUF files; say which: {', '.join(f'{repo}:{g}' for g in ggufs[:8])}"
            )
        raise ModelError(
            f"{repo} has neither safetensors nor GGUF files; other weights can hold code, and are refused."
        )
    parts = _parts(file) if file else []
    absent = [part for part in parts if part not in there]
    if absent and absent == parts:
        raise ModelError(f"{repo} has no file {file}; it has {', '.join(ggufs) or 'no GGUF file'}.")
    if absent:
        raise ModelError(f"{repo} has {file} not whole: {absent[0]} is missing.")
    file = parts[0] if parts else None
    wanted = parts or [name for name in there if _FILES.fullmatch(name)]
    if file is None and trust_remote_code:
        wanted += [name for name in there if _CODE.fullmatch(name)]
    commit = str(info.sha)
    for one in (*wanted, commit):
        if PurePosixPath(one).is_absolute() or ".." in PurePosixPath(one).parts:
            raise ModelError(f"{repo} names what would lie outside of its folder, {one}: it is refused.")
    name = f"{info.id}:{file}" if file else str(info.id)
    folder = models / "hub" / name.replace("/", "--").replace(":", "--") / commit[:12]
    settings: dict[str, Any] = {
        "engine": "llamacpp" if file else "hf",
        "repo": info.id,
        "revision": commit,
        "licence": _licence(info),
        "files": {one: {"size": there[one].size or 0, "sha256": _checksum(there[one])} for one in sorted(wanted)},
    }
    if file:
        gguf = info.gguf or {}
        settings |= {"file": file, "context_length": gguf.get("context_length"), "only": only}
    else:
        with said_to_a_person(repo):
            config = hf_hub_download(repo, "config.json", revision=commit, local_dir=folder)
        settings["context_length"] = context_of(Path(config))
        settings["trust_remote_code"] = trust_remote_code
    # A repository has many files at one commit; what is made of a file is known by its checksum.
    checksum = _checksum(there[parts[0]]) if len(parts) == 1 else None
    checksum = checksum or sha256(f"{name}@{commit}".encode()).hexdigest()
    return Version(
        "gpt", name, commit[:12], folder=str(folder), checksum=checksum, code_version=__version__, settings=settings
    )


def _parts(file: str) -> list[str]:
    """The files of a GGUF model that is split, the one that engines open first; or the one file that it is."""
    match = _PART.fullmatch(file)
    if match is None:
        return [file]
    numbers = range(1, int(match["count"]) + 1)
    return [f"{match['stem']}{number:05}-of-{match['count']}{match['ending']}" for number in numbers]


def context_of(config: Path) -> int | None:
    """Tokens of context that a config.json states. Raises ModelError where it is not one."""
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        inner = said.get("text_config", said)
        length = next(
            (inner[key] for key in ("max_position_embeddings", "n_positions", "n_ctx") if key in inner), None
        )
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config} is not the configuration of a model: {error}.") from None
    return length if isinstance(length, int) and length > 0 else None


def _checksum(sibling: Any) -> str | None:
    """SHA-256 of a large file; the hub gives none for small ones."""
    return None if sibling.lfs is None else str(sibling.lfs.sha256)


def _licence(info: Any) -> str:
    tags = [tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")]
    return tags[0] if tags else "unknown"


def _on_disk(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # moved to its place just now
            total += path.stat().st_size if path.is_file() else 0
    return total
