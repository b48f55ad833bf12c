"""The text encoder of the catalog, fetched where it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from chatbot.aigc.text import TextEncoder
from chatbot.catalog import DEFAULTS
from chatbot.fetch import fetch
from chatbot.settings import Settings


def text_encoder(tell: Callable[[str, float | None], None] = lambda text, fraction: None) -> TextEncoder:
    """Load it; for programs without an event loop. Raises ModelError where it cannot be fetched."""
    return TextEncoder(encoder_folder(tell))


def encoder_folder(tell: Callable[[str, float | None], None]) -> Path:
    """Where it is, fetched where it is not there; for programs without an event loop. Raises ModelError."""
    return asyncio.run(fetch(DEFAULTS["encoder"], Settings.load().models_folder, tell)).parent
