"""What a run would cost: the data is prepared for real, and a step or two is taken."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from chatbot.gpt import prepare, speed
from chatbot.gpt.corpus import Report
from chatbot.gpt.networks import (
    base_model,
    compute_targets_only,
    keeps_apart,
    new_model,
    parameters,
    with_adapters,
)
from chatbot.gpt.options import Options
from chatbot.gpt.prefer import rewards
from chatbot.gpt.samples import Sample

_SECONDS = 3.0


def estimate(
    options: Options,
    own: Callable[[Report], Sequence[Sample]],
    tell: Callable[[str, float | None], None],
    complain: Callable[[str], None],
) -> list[str]:
    """Lines that say parameters, tokens, steps, memory, tokens a second and time.

    Raises UserError where the data is unfit.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        report = Report()
        mine = own(report) if options.conversations else ()
        data = prepare.prepare(options, Path(name, "data"), mine, report, tell, complain)
        tell("Trying some steps", None)
        if options.stage == "pretrain":
            model = new_model(options, data.tokenizer())
        else:
            model = base_model(Path(options.base_folder), options.base)
            if not keeps_apart(model, options.base):
                data.unpack()
        compute_targets_only(model)
        if options.lora_rank:
            begun = Path(options.adapter) if options.adapter else None
            model = with_adapters(model, options.lora_rank, options.seed, begun)
        rows = options.micro_rows or speed.find_micro_rows(model, options, device, 1)
        model.to(device).train()
        batch = {key: value.to(device) for key, value in data.train.batch([0] * rows).items()}
        started, tried = time.monotonic(), 0
        while tried == 0 or time.monotonic() - started < _SECONDS:
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                loss = rewards(model, batch).sum() if options.stage == "prefer" else model(**batch).loss
            loss.backward()
            tried += 1
        a_row = data.tokens_a_row
        pace = tried * rows * a_row / (time.monotonic() - started)
        steps = options.steps or math.ceil(options.epochs * len(data.train) / options.rows_a_step)
        tokens = round(steps * options.rows_a_step * a_row)
        total, trained = parameters(model)
        return [
            f"{total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M trained, {device.type}, {options.precision}",
            f"{data.train.meta['tokens']:,} tokens to learn from, {data.train.meta['targets']:,} of them learned, "
            f"{data.held.meta['tokens']:,} held out",
            f"{steps:,} steps of {options.rows_a_step:,} rows of {a_row:,.0f} tokens, {tokens:,} in all; "
            f"{rows:,} rows at once",
            f"memory about {speed.memory(model, options, rows) / 1e9:.1f} GB",
            f"{pace:,.0f} tokens/s: about {tokens / pace / 60:.0f} min",
        ]
