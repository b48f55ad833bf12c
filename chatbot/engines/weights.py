"""The weights of a version in the form that transformers reads, whatever form they are kept in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chatbot.engines.gguf_to_hf import dequantized
from chatbot.engines.hf import converted_folder
from chatbot.errors import ModelError
from chatbot.fetch import Tell
from chatbot.registry import Registry
from chatbot.settings import Settings
from storage.versions import Version


async def transformers_folder(registry: Registry, settings: Settings, version: Version, tell: Tell) -> Path:
    """The folder of a version as transformers reads it: fetched, and dequantised once where it is a GGUF file.

    Raises:
        ModelError: it cannot be fetched or converted, or answers from afar.
    """
    version = await registry.pulled(version, tell)
    path = registry.path(version)
    if version.settings["engine"] not in ("hf", "llamacpp"):
        raise ModelError(f"The weights of {version.ref} are not here; only models on this machine can be trained.")
    if path.suffix.lower() != ".gguf":
        return path
    tell(f"Reading {version.ref} for transformers", None)
    return await asyncio.to_thread(dequantized, path, converted_folder(settings.cache, version.checksum))
