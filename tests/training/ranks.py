"""One of two processes that train together: `python -m tests.training.ranks DATA RUN TOLD`, started by torchrun.

Their losses are no numbers once; the second is slow to read the checkpoint that both go back to. What each holds at
the end is told in the folder TOLD, and whether it was read before it was written again.
"""

from __future__ import annotations

import json
import math
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from chatbot.aigc import train as training
from chatbot.aigc.autoencoder import AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.training import checkpoint, parallel
from tests.training.runs import options, train

FAILS = 29


def main(data: Path, run: Path, told: Path) -> None:
    torch.set_num_threads(1)
    rank, _ = parallel.start()
    stages: dict[str, AutoencoderStage | GanStage] = {}
    times: dict[str, float] = {}
    read, write, roll_back = checkpoint.load, checkpoint.write, training.Training._roll_back

    def step(name: str, known: Any) -> Any:
        def taken(stage: AutoencoderStage | GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
            stages[name] = stage
            stats: dict[str, torch.Tensor] = known(stage, number, progress)
            failed = name == "gan" and number == FAILS and not times
            return {key: value * math.nan for key, value in stats.items()} if failed else stats

        return taken

    def slow(place: Path) -> Any:
        if rank:
            time.sleep(1)
        found = read(place)
        times["read"] = time.monotonic()
        return found

    def timed(place: Path, *given: Any) -> None:
        times.setdefault("written", time.monotonic())
        write(place, *given)

    def back(*given: Any) -> Any:
        checkpoint.load, checkpoint.write = slow, timed
        try:
            return roll_back(*given)
        finally:
            checkpoint.load, checkpoint.write = read, write

    for kind in (AutoencoderStage, GanStage):
        kind.step = step(kind.name, kind.step)  # type: ignore[method-assign]  # it is watched
    training.Training._roll_back = back  # type: ignore[method-assign]  # it is watched
    training._CHECKPOINT = training._FIRST_CHECKPOINT = 0.0
    train(run, options(data, kimg=0.4))
    parallel.finish()
    held = {name: _checksum(stage) for name, stage in stages.items()}
    (told / f"{rank}.json").write_text(json.dumps({"held": held, "times": times}))


def _checksum(stage: AutoencoderStage | GanStage) -> str:
    tensors = stage.tensors()
    return sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors) if name != "gap")).hexdigest()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
