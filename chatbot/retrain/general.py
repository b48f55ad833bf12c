"""What a retrained model must not forget: texts and conversations about anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chatbot.gpt.reading import files, read
from chatbot.gpt.samples import Predicted, Preference

BUNDLED = Path(__file__).with_name("general.jsonl")


def general(more: Sequence[Path] = ()) -> list[Predicted]:
    """The bundled samples, written for this, and those of the person's own files.

    Raises:
        UserError: a file that cannot be used, with its line.
    """
    return [sample for sample in read(files([BUNDLED, *more])) if not isinstance(sample, Preference)]
