"""run.json: what a run was asked for, and what it plans to do; a run is resumed by nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

from chatbot import __version__
from chatbot.aigc.options import Options
from chatbot.errors import UserError

NAME = "run.json"


def check_new(run: Path) -> None:
    """Raises UserError where there is a run in a folder."""
    if (run / NAME).exists():
        raise UserError(f"There is a run in {run} already; go on with it by --resume, or name another --out.")


def write(run: Path, options: Options, plan: dict[str, int]) -> None:
    """Written whole or not at all; `plan` holds the steps of each stage."""
    held = {"options": options.as_json(), "plan": plan, "code_version": __version__}
    run.mkdir(parents=True, exist_ok=True)
    part = run / f"{NAME}.partial"
    part.write_text(json.dumps(held, indent=1), encoding="utf-8")
    os.replace(part, run / NAME)


def read(run: Path) -> tuple[Options, dict[str, int]]:
    """Options and plan of the run in a folder. Raises UserError where there is none."""
    try:
        held = json.loads((run / NAME).read_text(encoding="utf-8"))
        return Options(**held["options"]), held["plan"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"There is no run to resume in {run}.") from None
