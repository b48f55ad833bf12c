"""Twelve turns through the whole product (service, storage, events) and through xllamacpp called directly.

Both get the same model, threads, context, prompts and temperature 0, and take turns within each turn of the
conversation, so that a slow moment of the machine falls on both. Before each turn both are left alone for a
moment, as by a person who types: our engine reads on in it, and must not do so at the other's cost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import xllamacpp

from chatbot.catalog import CATALOG
from chatbot.events import Failed, Started, TextDelta, Usage
from chatbot.fetch import model_file
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.benchmarks.table import Row

TURNS = 12
ROUNDS = 9
TYPING_S = 0.5
TOKENS = 48
CONTEXT = 8192
QUESTIONS = [
    f"Tell me a long story about {thing}, with every detail."
    for thing in [
        "the sea",
        "a dog",
        "an old house",
        "the moon",
        "a train",
        "a forest",
        "a king",
        "a river",
        "the snow",
        "a ship",
        "a city",
        "a bird",
    ]
]


class Direct:
    """xllamacpp in this process, its prompt cache on."""

    def __init__(self, path: str, threads: int, tokens: int = TOKENS) -> None:
        self._tokens = tokens
        parameters = xllamacpp.CommonParams()
        parameters.model.path = path
        parameters.n_ctx = CONTEXT
        parameters.cpuparams.n_threads = threads
        parameters.verbosity = 0
        self._server = xllamacpp.Server(parameters)
        self._messages: list[dict[str, str]] = []

    def begin(self, system: str) -> None:
        self._messages = [{"role": "system", "content": system}]

    def turn(self, question: str) -> tuple[float, float]:
        """First token (s) and decode speed (tokens/s)."""
        self._messages.append({"role": "user", "content": question})
        times: list[float] = []
        pieces: list[str] = []
        counted: dict[str, int] = {}

        def take(chunk: dict[str, Any]) -> bool:
            if chunk.get("usage"):
                counted.update(chunk["usage"])
            if chunk["choices"] and (text := chunk["choices"][0]["delta"].get("content")):
                times.append(time.perf_counter())
                pieces.append(text)
            return False

        asked = time.perf_counter()
        request = {
            "messages": self._messages,
            "max_tokens": self._tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self._server.handle_chat_completions(request, take)
        self._messages.append({"role": "assistant", "content": "".join(pieces)})
        return times[0] - asked, (counted["completion_tokens"] - 1) / (times[-1] - times[0])


async def measure() -> list[Row]:
    # What the path costs, and not what guessing ahead gains: `repeating` measures that.
    settings = Settings.load(temperature=0.0, max_tokens=TOKENS, context=CONTEXT, slots=1, threads=2, speculate=False)
    path = str(model_file(CATALOG[0], settings.models_folder))
    direct = await asyncio.to_thread(Direct, path, settings.threads)
    speeds: tuple[list[float], list[float]] = ([], [])
    last: tuple[list[float], list[float]] = ([], [])
    async with open_service(settings) as service:
        await service.models.load(lambda progress: None)
        for number in range(ROUNDS):
            conversation: str | None = None
            direct.begin(settings.system)

            async def ours(question: str) -> tuple[float, float]:
                nonlocal conversation
                times: list[float] = []
                tokens = 0
                asked = time.perf_counter()
                async for event in service.send(conversation, question):
                    if isinstance(event, Started):
                        conversation = event.conversation
                    elif isinstance(event, TextDelta):
                        times.append(time.perf_counter())
                    elif isinstance(event, Usage):
                        tokens = event.completion_tokens
                    elif isinstance(event, Failed):
                        raise RuntimeError(event)
                return times[0] - asked, (tokens - 1) / (times[-1] - times[0])

            async def theirs(question: str) -> tuple[float, float]:
                turn: Callable[[str], tuple[float, float]] = direct.turn
                return await asyncio.to_thread(turn, question)

            for turn, question in enumerate(QUESTIONS):
                order = [(0, ours), (1, theirs)]
                for side, call in order if (turn + number) % 2 else order[::-1]:
                    await asyncio.sleep(TYPING_S)
                    first, speed = await call(question)
                    speeds[side].append(speed)
                    if turn == TURNS - 1:
                        last[side].append(first)
    return [
        Row("decode, whole product path", "tokens/s", *map(median, speeds), "xllamacpp direct", "ratio ≥ 0.97"),
        Row("first token of turn 12", "s", *map(median, last), "xllamacpp direct", "within 0.015 s"),
    ]
