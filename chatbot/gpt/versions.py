"""A trained chat model becomes a candidate of the registry."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.errors import UserError
from chatbot.local_models import inspect_file
from chatbot.registry import Registry
from chatbot.settings import Settings
from chatbot.training.register import register as register_any
from storage.versions import Version

if TYPE_CHECKING:
    from chatbot.gpt.evaluate import Candidate
    from chatbot.gpt.export import Format
    from chatbot.gpt.run import Outcome

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_GGUF = "adapter.gguf"


async def register(
    registry: Registry,
    home: Path,
    outcome: Outcome,
    run: str,
    more: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Version:
    """Copy the model into `home`, and register it with its settings, `more` of them, figures and parent.

    An adapter is answered with by the engine of its base. Raises UserError where it cannot be copied.
    """
    options = outcome.options
    settings: dict[str, Any] = {"engine": "hf", "context_length": options.block, "trained": options.as_json()}
    settings |= more or {}
    parent = options.base_ref or None
    if parent is not None:
        base = await registry.find(parent)
        settings["context_length"] = base.settings.get("context_length")
        settings |= {"licence": base.settings["licence"]} if "licence" in base.settings else {}
        if options.lora_rank:
            settings |= {"engine": base.settings["engine"], "base": parent}
    return await register_any(
        registry,
        home,
        "gpt",
        run,
        outcome.model,
        checksum_of=ADAPTER_WEIGHTS if options.lora_rank else "model.safetensors",
        settings=settings,
        figures=outcome.figures,
        fingerprint=outcome.fingerprint,
        parent=options.adapter_ref or parent,
        again=again,
    )


async def candidate_of(
    registry: Registry, settings: Settings, version: Version, tell: Callable[[str, float | None], None]
) -> Candidate:
    """A version as it is measured. Raises ModelError where it cannot be fetched or read."""
    from chatbot.engines.weights import transformers_folder
    from chatbot.gpt.evaluate import Candidate

    adapter, base = None, version
    if "base" in version.settings:
        adapter, base = registry.folder(version), await registry.find(version.settings["base"])
    return Candidate(version.ref, await transformers_folder(registry, settings, base, tell), adapter)


async def export_to_gguf(
    registry: Registry,
    settings: Settings,
    ref: str,
    format: Format,
    target: Path | None,
    tell: Callable[[str, float | None], None],
) -> tuple[Path, Version | None]:
    """Write a version as a GGUF file; an adapter together with its base.

    Args:
        target: the file; None: it becomes a version of its own, NAME@VERSION-FORMAT, which is returned too.

    Raises:
        UserError: it cannot be exported, or is one already.
    """
    from chatbot.engines.weights import transformers_folder
    from chatbot.gpt.export import export, merged

    version = await registry.find(ref)
    adapter: Path | None = None
    base = version
    if "base" in version.settings:
        adapter, base = registry.folder(version), await registry.find(version.settings["base"])
    elif registry.path(version).suffix.lower() == ".gguf":
        raise UserError(f"{version.ref} is a GGUF file already: {registry.path(version)}.")
    folder = await transformers_folder(registry, settings, base, tell)
    name = f"{version.version}-{format}"
    file = target or settings.home / "models" / version.name / name / f"{version.name}-{name}.gguf"
    known = {row.version.ref for row in await registry.list()}
    if target is None and f"{version.name}@{name}" in known:
        raise UserError(f"{version.name}@{name} is there already; `chatbot models remove` it first.")
    if not file.resolve().parent.is_dir():
        if target is not None:
            raise UserError(f"There is no folder {file.resolve().parent}.")
        file.parent.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        if adapter is not None:
            tell(f"Adding {version.ref} to {base.ref}", None)
            await asyncio.to_thread(merged, folder, adapter, Path(scratch))
            folder = Path(scratch)
        await asyncio.to_thread(export, folder, file, format, version.ref, tell)
    if target is not None:
        return file, None
    found, checksum = await asyncio.to_thread(inspect_file, file)
    made = Version(
        "gpt",
        version.name,
        name,
        folder=str(file.parent),
        checksum=checksum,
        code_version=version.code_version,
        parent=version.ref,
        data_fingerprint=version.data_fingerprint,
        figures=version.figures,
        settings={**found, **{key: version.settings[key] for key in ("licence", "run") if key in version.settings}},
    )
    await registry.add(made)
    return file, made
