"""A trained chat model becomes a candidate of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.registry import Registry
from chatbot.training.register import register as register_any
from storage.versions import Version

if TYPE_CHECKING:
    from chatbot.gpt.run import Outcome

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_GGUF = "adapter.gguf"


async def register(registry: Registry, home: Path, outcome: Outcome, run: str) -> Version:
    """Copy the model into `home`, and register it with its settings, figures and parent.

    An adapter is answered with by the engine of its base. Raises UserError where it cannot be copied.
    """
    options = outcome.options
    settings: dict[str, Any] = {"engine": "hf", "context_length": options.block, "trained": options.as_json()}
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
        parent=parent,
    )
