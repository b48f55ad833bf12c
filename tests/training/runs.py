"""Runs of training that take seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from chatbot.aigc.options import Options, from_preset
from chatbot.aigc.text import TextEncoder
from chatbot.aigc.train import Outcome, Training
from chatbot.training import checkpoint

SMALL = {"width": 32, "mapping": 32, "autoencoder": 40, "code": 4, "memory": 6}


def options(data: Path, **changes: object) -> Options:
    asked = from_preset("cpu-32", data=str(data), conditioning="classes", kimg=0.12, batch=8, shape=SMALL)
    return replace(asked, **changes)  # type: ignore[arg-type]  # its fields, by name


def no_encoder() -> TextEncoder:
    raise AssertionError("no caption is read")


def train(
    run: Path,
    asked: Options | None,
    stopping: Callable[[], bool] = lambda: False,
    said: list[str] | None = None,
    tell: Callable[[str, float | None], None] = lambda text, fraction: None,
    encoder: Callable[[], TextEncoder] = no_encoder,
) -> Outcome:
    complain = (said if said is not None else []).append
    return Training(run, asked, encoder=encoder, stopping=stopping, tell=tell, complain=complain).go()


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop once it was asked so often."""
    counted = iter(range(10_000))
    return lambda: next(counted) >= steps


def last(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints"
    return checkpoint.load(folder / f"{checkpoint.numbers(folder)[-1]:08d}")[0]
