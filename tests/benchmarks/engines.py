"""The product beside other engines, turn by turn in one run: speed, first token, load, memory, many at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from chatbot.catalog import CATALOG
from chatbot.engines.gguf_to_hf import dequantized
from chatbot.engines.hf import converted_folder
from chatbot.engines.llamacpp_server import cores
from chatbot.fetch import model_file
from chatbot.settings import Settings
from tests.benchmarks.decode import QUESTIONS
from tests.benchmarks.peers import LLAMA_CPP_PYTHON, ROOT, peer

ROUNDS = 2
TOKENS = 48
CONTEXT = 4096
TURNS = (1, 4, 12)
TOGETHER = (1, 2, 4, 8, 16)
TRANSFORMERS = ("ctranslate2", "numpy", *(f"{name}=={version(name)}" for name in ("torch", "transformers")))
OURS = "chatbot"
BESIDE = "xllamacpp"
PEERS: dict[str, Callable[[], Path]] = {
    OURS: lambda: Path(sys.executable).parent,
    BESIDE: lambda: peer("xllamacpp", f"xllamacpp=={version('xllamacpp')}"),
    "llama-cpp-python": lambda: peer("llama-cpp-python", LLAMA_CPP_PYTHON),
    "openvino-genai": lambda: peer("openvino-genai", "openvino-genai"),
    "ctranslate2": lambda: peer("transformers", *TRANSFORMERS),
    "transformers": lambda: peer("transformers", *TRANSFORMERS),
}


@dataclass
class Figures:
    """What was measured of one engine."""

    load_s: float
    speeds: list[float] = field(default_factory=list)
    firsts: dict[int, list[float]] = field(default_factory=lambda: {turn: [] for turn in TURNS})
    memory_mb: float = 0.0


class Running:
    """An engine in a process of its own."""

    def __init__(self, engine: str, executables: Path, model: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(executables / "python"), str(Path(__file__).with_name("peer_engines.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | ({"PYTHONPATH": str(ROOT)} if engine == OURS else {}),
        )
        asked = {"engine": engine, "model": str(model), "folder": str(folder)}
        self.figures = Figures(**self.ask(**asked, threads=cores(), tokens=TOKENS, context=CONTEXT))

    def ask(self, **task: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"It ended with {self._process.wait()}, asked for {list(task)}.")
        said: dict[str, float] = json.loads(answer)
        return said

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def measure() -> str:
    """Returns Markdown tables."""
    settings = Settings.load()
    model = model_file(CATALOG[0], settings.models_folder)
    folder = dequantized(model, converted_folder(settings.cache, CATALOG[0].sha256))
    with ExitStack() as stack:
        engines: dict[str, Running] = {}
        for name, environment in PEERS.items():
            try:
                engines[name] = Running(name, environment(), model, folder)
                stack.callback(engines[name].close)
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        for number in range(ROUNDS):
            for engine in engines.values():
                engine.ask(begin=f"You are a helpful assistant, number {number}.")
            for turn, question in enumerate(QUESTIONS, start=1):
                for engine in engines.values():
                    time.sleep(0.3)  # a person types; whoever reads on does it now
                    said = engine.ask(say=question)
                    if said["tokens_per_s"]:
                        engine.figures.speeds.append(said["tokens_per_s"])
                    if turn in TURNS:
                        engine.figures.firsts[turn].append(said["first_s"])
                    engine.figures.memory_mb = said["memory_mb"]
        rows = [_header("engine", "tokens/s", *(f"first token {turn}, s" for turn in TURNS), "load, s", "memory, MB")]
        rows += [_row(name, engine.figures) for name, engine in engines.items()]
        limit = _bandwidth() / model.stat().st_size
        rows.append(f"| limit: {model.stat().st_size:,} B of weights read per token | {limit:.1f} | | | | | |")
        ours = engines[OURS].figures
        peers = {name: engine.figures for name, engine in engines.items() if name != OURS}
        rows += [
            "",
            _header("beside the best peer", "ratio", "that peer", "goal"),
            _beside("tokens/s", ours, peers, lambda one: median(one.speeds), "≥ 0.97", best=max),
            *(
                _beside(f"first token {turn}", ours, peers, partial(_first, turn=turn), "≤ 1.03", best=min)
                for turn in TURNS
            ),
            _beside("load", ours, peers, lambda one: one.load_s, "≤ 1.03", best=min),
            _beside("memory", ours, peers, lambda one: one.memory_mb, "≤ 1.03", best=min),
            f"| tokens/s, over the limit | {median(ours.speeds) / limit:.3f} | | |\n",
        ]
        rows.append(_header("at once", f"{OURS}, tokens/s", f"{BESIDE}, tokens/s", "ratio"))
        for count in TOGETHER:
            questions = [f"{QUESTIONS[number % len(QUESTIONS)]} Number {number}." for number in range(count)]
            speeds: dict[str, list[float]] = {OURS: [], BESIDE: []}
            for number in range(3):
                for name in speeds if number % 2 else reversed(speeds):
                    speeds[name].append(engines[name].ask(together=questions)["tokens_per_s"])
            mine, theirs = median(speeds[OURS]), median(speeds[BESIDE])
            rows.append(f"| {count} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.3f} |")
    return "\n".join(rows)


def _header(*names: str) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _first(figures: Figures, turn: int) -> float:
    return median(figures.firsts[turn])


def _beside(
    what: str,
    ours: Figures,
    peers: dict[str, Figures],
    figure: Callable[[Figures], float],
    goal: str,
    *,
    best: Callable[..., str],
) -> str:
    other = best(peers, key=lambda name: figure(peers[name]))
    return f"| {what} | {figure(ours) / figure(peers[other]):.3f} | {other} | {goal} |"


def _row(name: str, figures: Figures) -> str:
    firsts = (f"{median(times):.3f}" for times in figures.firsts.values())
    speed = f"{median(figures.speeds):.1f}"
    return f"| {' | '.join([name, speed, *firsts, f'{figures.load_s:.2f}', f'{figures.memory_mb:.0f}'])} |"


def _bandwidth() -> float:
    """Bytes per second that all cores together read from memory, at best."""
    parts = [np.ones(2**26, dtype=np.float32) for _ in range(cores())]
    best = 0.0
    for _ in range(5):
        threads = [threading.Thread(target=part.max) for part in parts]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - began))
    return best
