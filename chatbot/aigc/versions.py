"""A trained picture model becomes a candidate of the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.aigc.model import ABOUT, WEIGHTS
from chatbot.registry import Registry
from chatbot.training.register import register as register_any
from storage.versions import Version

if TYPE_CHECKING:
    from chatbot.aigc.train import Outcome


async def register(
    registry: Registry,
    home: Path,
    outcome: Outcome,
    run: str,
    more: Mapping[str, Any] | None = None,
    parent: str | None = None,
    again: bool = False,
) -> Version:
    """Copy the model into `home`, and register it with how it was trained, and `more` settings.

    Raises UserError where it cannot be copied.
    """
    trained = json.loads((outcome.model / ABOUT).read_text(encoding="utf-8"))["options"]
    return await register_any(
        registry,
        home,
        "aigc",
        run,
        outcome.model,
        checksum_of=WEIGHTS,
        settings={"engine": "aigc", "file": WEIGHTS, "trained": trained, **(more or {})},
        figures=outcome.figures,
        fingerprint=outcome.fingerprint,
        parent=parent,
        again=again,
    )
