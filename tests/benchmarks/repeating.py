"""Replies that repeat what they were given, an edit and a summary, beside xllamacpp called directly."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from chatbot.catalog import CATALOG
from chatbot.events import Failed, TextDelta, Usage
from chatbot.fetch import model_file
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.benchmarks.decode import CONTEXT, Direct
from tests.benchmarks.table import Row

ROUNDS = 5
TOKENS = 120
TEXT = (
    "The ferry to the northern islands leaves from the old harbour every morning at seven. Passengers should arrive "
    "thirty minutes before departure with a printed ticket. Dogs are welcome on the lower deck. The crossing takes "
    "about two hours in calm weather and there is a small café on board that sells coffee, soup and sandwiches. In "
    "winter the timetable changes and the ferry leaves at nine."
)
TASKS = {
    "an edit": f"Write this text again with 'ferry' replaced by 'boat', and nothing else changed:\n\n{TEXT}",
    "a summary": f"Summarize this text using its own sentences:\n\n{TEXT}",
    "a story": "Tell me a long story about the sea, with every detail.",
}


async def measure() -> list[Row]:
    settings = Settings.load(temperature=0.0, max_tokens=TOKENS, context=CONTEXT, slots=1, threads=2)
    path = str(model_file(CATALOG[0], settings.models_folder))
    direct = await asyncio.to_thread(Direct, path, settings.threads, TOKENS)
    rows = []
    async with open_service(settings) as service:
        await service.models.load(lambda progress: None)
        for name, task in TASKS.items():
            speeds: tuple[list[float], list[float]] = ([], [])
            for number in range(ROUNDS):

                async def ours(task: str = task) -> float:
                    times: list[float] = []
                    tokens = 0
                    async for event in service.send(None, task):
                        if isinstance(event, TextDelta):
                            times.append(time.perf_counter())
                        elif isinstance(event, Usage):
                            tokens = event.completion_tokens
                        elif isinstance(event, Failed):
                            raise RuntimeError(event)
                    return (tokens - 1) / (times[-1] - times[0])

                async def theirs(task: str = task) -> float:
                    direct.begin(settings.system)
                    return (await asyncio.to_thread(direct.turn, task))[1]

                order = [(0, ours), (1, theirs)]
                for side, call in order if number % 2 else order[::-1]:
                    await asyncio.sleep(0.5)
                    speeds[side].append(await call())
            goal = "ratio ≥ 0.97" if name == "a story" else "ratio ≥ 1.5"
            rows.append(Row(f"decode of {name}", "tokens/s", *map(median, speeds), "xllamacpp direct", goal))
    return rows
