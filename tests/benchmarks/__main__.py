"""Runs every measurement and prints one table. Needs the default model and, for the peers, the registry."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from tests.benchmarks import (
    ask,
    decode,
    engines,
    finetuning,
    first_screen,
    generate,
    pretraining,
    repeating,
    telegram,
)
from tests.benchmarks.table import render


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CHATBOT_HOME"] = str(folder / "home")
        rows = [
            *asyncio.run(decode.measure()),
            *asyncio.run(repeating.measure()),
            *asyncio.run(generate.measure()),
            *ask.measure(folder),
            *first_screen.measure(folder),
            *pretraining.measure(),
            *finetuning.measure(),
        ]
        compared = engines.measure()
    print(render(rows), compared, telegram.measure(), sep="\n\n")


main()
