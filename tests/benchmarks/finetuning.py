"""Tokens a second of fine-tuning beside a plain Trainer: float32, block 128, batch 4, GPT-2's size from a config.

`python -m tests.benchmarks.finetuning`: both in one process, taking turns, on the same token ids. Ours is the trainer
of `chatbot train gpt finetune` as it sets itself up on this machine, on the same model and all of its tokens learned;
on a CPU with a quarter of the tokens a step that it takes by itself, so that it is over sooner.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.table import Row

BLOCK, BATCH, ROUNDS = 128, 4, 3
CPU_TOKENS = 2048
STEPS = {"cpu": (3, 4), "cuda": (20, 50)}
"""Of ours, and of the plain script: those of a GPU are over in no time."""


def kind() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Clock:
    """Moments at which steps ended, by a callback of the Trainer."""

    def __init__(self) -> None:
        import torch
        from transformers import TrainerCallback

        times = self.times = []  # type: list[float]

        class Note(TrainerCallback):
            def on_step_end(self, *arguments: Any, **named: Any) -> None:
                if kind() == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter())

        self.callback = Note()

    def seconds_a_step(self) -> float:
        """The first step is for warming up."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config())


def plain(folder: Path, ids: Any) -> float:
    """The plain script: tokens a second."""
    import torch
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(ids).split(BLOCK)]
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS[kind()][1], per_device_train_batch_size=BATCH, save_strategy="no",
        report_to=[], disable_tqdm=True, use_cpu=kind() == "cpu", logging_strategy="no",
    )  # fmt: skip
    Trainer(model(), arguments, train_dataset=rows, callbacks=[clock.callback]).train()
    return BATCH * BLOCK / clock.seconds_a_step()


def ours(folder: Path, ids: Any) -> float:
    """Tokens a second of our trainer, as `finetune --method full` sets it up."""
    import torch
    from transformers import TrainingArguments

    from chatbot.gpt import speed
    from chatbot.gpt.chat_tokens import Tokens
    from chatbot.gpt.networks import compute_targets_only, unburden
    from chatbot.gpt.options import finetuning
    from chatbot.gpt.rows import Rows, Writer
    from chatbot.gpt.trainer import TokenTrainer

    steps, tokens = STEPS[kind()][0], CPU_TOKENS if kind() == "cpu" else None
    options = finetuning("full", block=BLOCK, batch_tokens=tokens, precision=speed.precision(), steps=steps)
    with Writer(folder / "train", 50_257) as writer:
        for row in np.array_split(ids, len(ids) // BLOCK):
            writer.add(Tokens(row.tolist(), [True] * len(row), len(row)))
    rows = Rows(folder / "train", BLOCK)
    network = model()
    unburden(network)
    compute_targets_only(network)
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, optim="adamw_torch_fused", save_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=kind() == "cpu", logging_strategy="no",
        average_tokens_across_devices=False, ignore_data_skip=True, remove_unused_columns=False,
    )  # fmt: skip
    micro_rows = speed.find_micro_rows(network, options, torch.device(kind()), 1)
    TokenTrainer(
        network, arguments, options, run=folder, train=rows, held=rows, steps=steps, micro_rows=micro_rows,
        complain=print, callbacks=[clock.callback],
    ).train()  # fmt: skip
    return options.rows_a_step * BLOCK / clock.seconds_a_step()


def measure() -> list[Row]:
    import transformers

    transformers.logging.set_verbosity_error()
    ids = np.random.default_rng(0).integers(0, 50_257, 64 * 8192)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # over several, a Trainer would spread the batch
    found: dict[Any, list[float]] = {ours: [], plain: []}
    for number in range(ROUNDS):
        for side in list(found)[:: 1 if number % 2 == 0 else -1]:  # neither is always the first
            with tempfile.TemporaryDirectory() as name:
                found[side].append(side(Path(name), ids))
            print(side.__name__, f"{found[side][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    goal = "ratio ≥ 2 on a CPU, ≥ 8 on a GPU"
    return [
        Row("fine-tuning GPT-2's size", "tokens/s", *map(median, found.values()), "Trainer, float32, 4x128", goal)
    ]


if __name__ == "__main__":
    from tests.benchmarks.table import render

    print(render(measure()))
