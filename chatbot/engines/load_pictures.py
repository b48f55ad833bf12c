"""Loads the model that makes pictures."""

from __future__ import annotations

from pathlib import Path

from chatbot.catalog import DEFAULTS
from chatbot.engines.base import ImageGenerator
from chatbot.errors import ModelError
from chatbot.fetch import Tell, fetch
from chatbot.registry import Registry
from chatbot.settings import Settings


async def load_generator(registry: Registry, settings: Settings, tell: Tell, wanted: str = "") -> ImageGenerator:
    """The picture model in use, or the one that `wanted` names (NAME[@VERSION], or its folder), in its own process.

    Raises:
        ModelError: it is unknown, no picture model, or does not load.
    """
    from chatbot.engines.aigc import AigcGenerator

    folder, name = await model_folder(registry, tell, wanted)
    encoder = await fetch(DEFAULTS["encoder"], settings.models_folder, tell)
    tell(f"Loading {name}", None)
    return await AigcGenerator.load(folder, encoder.parent, name, threads=settings.threads)


async def model_folder(registry: Registry, tell: Tell, wanted: str) -> tuple[Path, str]:
    """Folder and name of a picture model. Raises ModelError."""
    path = Path(wanted).expanduser()
    if wanted and (path / "model.json").is_file():
        return path.resolve(), path.resolve().name
    version = await (registry.find(wanted) if wanted else registry.current("aigc"))
    if version.kind != "aigc":
        raise ModelError(f"{version.ref} makes no pictures; `chatbot models list --kind aigc` shows what does.")
    version = await registry.pulled(version, tell)
    return registry.path(version).parent, version.ref
