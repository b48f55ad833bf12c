"""A newly promoted model has to speak before it answers anyone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions, Responder
from chatbot.errors import ModelError

PROMPTS = ("Hello! How are you?", "Name three colours.", "What is two plus two?")
WITHIN_S = 600.0  # a machine may have much else to do
_FEWEST = 4
"""Different characters in a reply that is one; broken weights mostly say nothing, or one thing again and again."""


async def try_out(responder: Responder) -> None:
    """Raises ModelError where it fails, is silent, stammers, or takes minutes for a few words."""
    for prompt in PROMPTS:
        try:
            said = await asyncio.wait_for(_reply(responder, prompt), WITHIN_S)
        except TimeoutError:
            raise ModelError(f"{responder.name} takes too long to say a few words.") from None
        if not said.strip():
            raise ModelError(f"{responder.name} says nothing to “{prompt}”.")
        if len(set(said)) < _FEWEST and len(said) > _FEWEST:
            raise ModelError(f"{responder.name} only stammers to “{prompt}”: {said[:20]}")


async def _reply(responder: Responder, prompt: str) -> str:
    options = GenerationOptions(max_tokens=24, temperature=0.0, followed=False)
    async with aclosing(responder.reply([ChatMessage("user", prompt)], options)) as pieces:
        return "".join([piece async for piece in pieces if not isinstance(piece, Completion)])
