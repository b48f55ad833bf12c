"""How many threads and slots serve a model best on this machine: measured once, and remembered."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from chatbot.engines.base import ChatMessage, GenerationOptions
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.llamacpp_server import cores
from chatbot.engines.prompt_cache import PromptCache
from chatbot.errors import ModelError

MOST_SLOTS = 16
_CONTEXT = 256
_WINDOW_S = 0.4
_PATIENCE_S = 20
_ROUNDS = 2
_NEARLY = 0.9  # of the best: the rest may be chance, and is not worth another slot's memory
_GLANCE_S = 0.2
_BUSY = 0.15  # of the cores that others keep busy: no moment for measuring
_PROMPT = [ChatMessage("user", "Tell me a long story about the sea, with every detail.")]


@dataclass(frozen=True, slots=True)
class Tuning:
    """`threads` decode one conversation soonest; with `slots` at once the machine does about all it can."""

    threads: int
    slots: int


def remembered(file: Path, model: str) -> Tuning | None:
    """What was measured of `model` on a machine with as many cores as this."""
    try:
        return Tuning(**_read(file)[_key(model)])
    except (KeyError, TypeError):
        return None


async def measure(
    path: Path, model: str, file: Path, *, context: int, tell: Callable[[], None] = lambda: None
) -> Tuning:
    """Measure the GGUF at `path`, some seconds long, and remember it in `file`.

    Where other programs compute, or the model says too little to be measured, the answer is all cores and two slots,
    and nothing is remembered.

    Args:
        model: a name that changes with its weights.
        context: tokens of a conversation; all slots together take no more than an eighth of the memory.
        tell: called before it takes long.

    Raises:
        ModelError: the model does not load.
    """
    unmeasured = Tuning(cores(), 2)
    began, others = time.perf_counter(), _cpu_of_others()
    await asyncio.sleep(_GLANCE_S)
    if _is_busy(others, began):
        return unmeasured
    tell()
    async with AsyncExitStack() as stack:
        prompts = PromptCache(Path(stack.enter_context(tempfile.TemporaryDirectory())), "measured")
        engines: dict[int, LlamaCppResponder] = {}
        for threads in sorted({cores(), _physical_cores(), max(1, cores() // 2)}, reverse=True):
            engines[threads] = await LlamaCppResponder.load(
                path,
                model,
                context_length=_CONTEXT,
                slots=MOST_SLOTS,
                threads=threads,
                speculate=False,
                prompts=prompts,
            )
            stack.push_async_callback(engines[threads].close)
        try:
            speeds = dict.fromkeys(engines, 0.0)
            for _ in range(_ROUNDS):  # in turn, so that a slow moment falls on all
                for threads, engine in engines.items():
                    speeds[threads] = max(speeds[threads], await _speed(engine, 1))
            best = max(speeds.values())
            threads = next(threads for threads, speed in speeds.items() if speed >= _NEARLY * best)
            together = {1: speeds[threads], 2: 0.0, 4: 0.0, 8: 0.0, MOST_SLOTS: 0.0}
            for _ in range(_ROUNDS):
                for slots in together:
                    together[slots] = max(together[slots], await _speed(engines[threads], slots))
            fitting = (
                psutil.virtual_memory().total / 8 / (context * await _bytes_per_token(engines[threads], prompts))
            )
        except (ModelError, ZeroDivisionError):
            return unmeasured
        if _is_busy(others, began):
            return unmeasured
    enough = min(slots for slots, speed in together.items() if speed >= _NEARLY * max(together.values()))
    tuning = Tuning(threads, max(1, min(enough, int(fitting))))
    with suppress(OSError):  # measured again next time, then
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.write_text(json.dumps(_read(file) | {_key(model): asdict(tuning)}, indent=2))
        os.replace(part, file)
    return tuning


async def _speed(engine: LlamaCppResponder, conversations: int) -> float:
    """Tokens per second of all replies together, while as many as `conversations` come at once.

    Raises:
        ModelError: the model says too little.
    """
    pieces = [0] * conversations
    under_way = asyncio.Barrier(conversations + 1)

    async def listen(number: int) -> None:
        options = GenerationOptions(max_tokens=_CONTEXT // 2, temperature=1.0, seed=number)
        async with aclosing(engine.reply(_PROMPT, options)) as reply:
            async for _ in reply:
                if not pieces[number]:
                    await under_way.wait()
                pieces[number] += 1

    listening = [asyncio.create_task(listen(number)) for number in range(conversations)]
    all_under_way = asyncio.create_task(under_way.wait())
    try:
        await asyncio.wait([all_under_way, *listening], timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not all_under_way.done() or any(task.done() for task in listening):
            raise ModelError(f"{engine.name} says too little to be measured.")
        began, before = time.perf_counter(), sum(pieces)
        await asyncio.sleep(_WINDOW_S)
        return (sum(pieces) - before) / (time.perf_counter() - began)
    finally:
        for task in (all_under_way, *listening):
            task.cancel()
        await asyncio.gather(all_under_way, *listening, return_exceptions=True)


async def _bytes_per_token(engine: LlamaCppResponder, prompts: PromptCache) -> float:
    """Memory that a token of context takes."""

    def save() -> dict[str, Any]:
        with engine.client.connected() as connection:
            saved: dict[str, Any] = engine.client.ask(
                connection, "/slots/0?action=save", {"filename": prompts.new_file().name}
            )
            return saved

    saved = await asyncio.to_thread(save)
    return float(saved["n_written"] / saved["n_saved"])


def _is_busy(others: float, began: float) -> bool:
    """Whether others have computed much since."""
    return _cpu_of_others() - others > _BUSY * cores() * (time.perf_counter() - began)


def _cpu_of_others() -> float:
    """Seconds that the cores have spent on other programs."""
    all_cores = psutil.cpu_times()
    ours = psutil.Process()
    family = [process.cpu_times() for process in [ours, *ours.children(recursive=True)]]
    spent = sum(times.user + times.system for times in family)
    return sum(all_cores) - all_cores.idle - getattr(all_cores, "iowait", 0.0) - spent


def _physical_cores() -> int:
    return min(cores(), psutil.cpu_count(logical=False) or cores())


def _key(model: str) -> str:
    return f"{model} on {cores()} cores, {MOST_SLOTS} slots at most"


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text())
        return read if isinstance(read, dict) else {}
    except (OSError, ValueError):
        return {}
