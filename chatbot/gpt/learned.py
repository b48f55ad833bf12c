"""Which messages a run learns from, noted by their ids alone, so that what is forgotten ends in no version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from chatbot.errors import UserError
from chatbot.gpt.samples import Dialogue, Preference, Sample
from chatbot.store import Store

LEARNED = "learned.json"


def keep_learned(run: Path, own: Sequence[Sample]) -> list[str]:
    """Note the messages that a run learns from."""
    known = [sample for sample in own if isinstance(sample, Dialogue | Preference)]
    ids = list(dict.fromkeys(one for sample in known for one in sample.ids))
    run.mkdir(parents=True, exist_ok=True)
    (run / LEARNED).write_text(json.dumps(ids), encoding="utf-8")
    return ids


def kept_learned(run: Path) -> list[str]:
    """The messages that a run learns from. Raises UserError where that is not noted."""
    try:
        return [str(one) for one in json.loads((run / LEARNED).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        raise UserError(f"What the run in {run} learned from is not noted there; begin anew.") from None


async def check_learned(store: Store, learned: Sequence[str]) -> None:
    """Raises UserError where one of the messages that a run learned from is gone, or may not be learned from."""
    if not await store.conversations.learnable(learned):
        raise UserError(
            "Something that this run learned from was forgotten, or may not be learned from any more; begin anew."
        )
