"""Servers that the contract tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from chatbot.child import Child
from tests.endpoints import MODEL, Endpoint

CONTEXT = 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint(model_path: Path) -> AsyncIterator[Endpoint]:
    """llama.cpp's own HTTP server, OpenAI-compatible, on the real model."""
    key = "a-key-that-nobody-may-see"
    child = await Child.start(
        "chatbot.engines.llamacpp_server",
        {"path": str(model_path), "alias": MODEL, "context": CONTEXT, "slots": 2, "threads": 0, "key": key},
    )
    said = await child.receive()
    assert said is not None
    yield Endpoint(f"{said['address']}/v1", key)
    await child.close()
