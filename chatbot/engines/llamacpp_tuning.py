"""How many threads and slots serve a model best on this machine: measured once, and remembered."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from chatbot.engines.base import ChatMessage, GenerationOptions, Responder
from chatbot.engines.llamacpp import LlamaCppResponder
from chatbot.engines.llamacpp_server import cores
from chatbot.engines.prompt_cache import PromptCache
from chatbot.errors import ModelError

MOST_SLOTS = 16
_CONTEXT = 256
_WINDOW_S = 0.4
_FEWEST = 5  # pieces a reply in a window, which is longer where the model is slow
_PATIENCE_S = 20
_ROUNDS = 2
_NEARLY = 0.9  # of the best number of threads: the rest may be chance
_NEARLY_TOGETHER = 0.97  # of what slots give at most, where memory allows as many
_GLANCE_S = 0.2
_BUSY = 0.15  # of the cores that others keep busy: no moment for measuring
_PROMPT = [ChatMessage("user", "Tell me a long story about the sea, with every detail.")]


@dataclass(frozen=True, slots=True)
class Tuning:
    """`threads` decode one conversation soonest; with `slots` at once the machine does about all it can."""

    threads: int
    slots: int


class _TooSlowError(ModelError):
    """The model does not answer in time."""


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

    Where other programs compute, or the model says too little to be measured, or does not load, the answer is all
    cores and two slots, and nothing is remembered.

    Args:
        model: a name that changes with its weights.
        context: tokens of a conversation; all slots together take no more than an eighth of the memory.
        tell: called before it takes long.
    """
    unmeasured = Tuning(cores(), 2)
    began, others = time.perf_counter(), _cpu_of_others()
    await asyncio.sleep(_GLANCE_S)
    if _is_busy(others, began):
        return unmeasured
    tell()
    candidates = sorted({cores(), _physical_cores(), max(1, cores() // 2)}, reverse=True)
    speeds: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        prompts = PromptCache(Path(folder), "measured")
        try:
            for threads in candidates:  # one after the other: the memory may hold the model once
                async with _loaded(path, model, threads, prompts) as engine:
                    speeds[threads] = max([await _speed(engine, 1) for _ in range(_ROUNDS)])
            best = next(threads for threads in candidates if speeds[threads] >= _NEARLY * max(speeds.values()))
            async with _loaded(path, model, best, prompts) as engine:
                together = await _together(engine, speeds[best])
                fitting = psutil.virtual_memory().total / 8 / (context * await _bytes_per_token(engine, prompts))
        except (ModelError, ZeroDivisionError):
            return unmeasured
    enough = min(slots for slots, speed in together.items() if speed >= _NEARLY_TOGETHER * max(together.values()))
    tuning = Tuning(best, max(1, min(enough, int(fitting))))
    with suppress(OSError):  # measured again next time, then
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.write_text(json.dumps(_read(file) | {_key(model): asdict(tuning)}, indent=2))
        os.replace(part, file)
    return tuning


@asynccontextmanager
async def _loaded(path: Path, model: str, threads: int, prompts: PromptCache) -> AsyncIterator[LlamaCppResponder]:
    """Raises ModelError where it does not load, or others have computed much at the end."""
    began, others = time.perf_counter(), _cpu_of_others()
    engine = await LlamaCppResponder.load(
        path,
        model,
        context_length=_CONTEXT,
        slots=MOST_SLOTS,
        threads=threads,
        speculate=False,
        prompts=prompts,
    )
    try:
        yield engine
        if _is_busy(others, began):
            raise ModelError(f"The machine is too busy for {model} to be measured.")
    finally:
        await engine.close()


async def _together(engine: Responder, alone: float) -> dict[int, float]:
    """Tokens per second by how many conversations come at once, up to as many as a slow model begins in time."""
    sizes, speeds = [1, 2, 4, 8, MOST_SLOTS], {1: alone}
    for _ in range(_ROUNDS):  # in turn, so that a slow moment falls on all
        for slots in sizes:
            try:
                speeds[slots] = max(speeds.get(slots, 0.0), await _speed(engine, slots))
            except _TooSlowError:
                sizes = sizes[: sizes.index(slots)]
                break
    return speeds


async def _speed(engine: Responder, conversations: int) -> float:
    """Tokens per second of all replies together, while as many as `conversations` come at once.

    Raises:
        ModelError: the model says too little, or too slowly.
    """
    pieces = [0] * conversations
    came = 0.0  # the last of them
    under_way = asyncio.Event()

    async def listen(number: int) -> None:
        nonlocal came
        options = GenerationOptions(max_tokens=_CONTEXT // 2, temperature=1.0, seed=number)
        async with aclosing(engine.reply(_PROMPT, options)) as reply:
            async for _ in reply:
                pieces[number] += 1
                came = time.perf_counter()
                if all(pieces):
                    under_way.set()

    listening = [asyncio.create_task(listen(number)) for number in range(conversations)]
    all_under_way = asyncio.create_task(under_way.wait())
    slow = _TooSlowError(f"{engine.name} is too slow to be measured.")
    few = ModelError(f"{engine.name} says too little to be measured.")
    try:
        await asyncio.wait([all_under_way, *listening], timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if any(task.done() for task in listening):
            raise few
        if not all_under_way.done():
            raise slow
        began, before = came, sum(pieces)
        await asyncio.sleep(_WINDOW_S)
        while sum(pieces) - before < _FEWEST * conversations:
            if any(task.done() for task in listening):
                raise few
            if time.perf_counter() - began > _PATIENCE_S:
                raise slow
            await asyncio.sleep(_WINDOW_S)
        return (sum(pieces) - before) / (came - began)
    finally:
        for task in (all_under_way, *listening):
            task.cancel()
        await asyncio.gather(all_under_way, *listening, return_exceptions=True)


async def _bytes_per_token(engine: LlamaCppResponder, prompts: PromptCache) -> float:
    """Memory that a token of context takes."""

    def save() -> list[dict[str, Any]]:
        with engine.client.connected() as connection:
            return [
                engine.client.ask(connection, f"/slots/{slot}?action=save", {"filename": prompts.new_file().name})
                for slot in range(MOST_SLOTS)  # which of them were used is not known
            ]

    saved = await asyncio.to_thread(save)
    return float(sum(slot["n_written"] for slot in saved) / sum(slot["n_saved"] for slot in saved))


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
