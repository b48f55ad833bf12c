"""What a retrained model must not forget: texts and conversations about anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chatbot.gpt.reading import files, read
from chatbot.gpt.samples import Predicted, Preference, Text

BUNDLED = Path(__file__).with_name("general.jsonl")


def general(more: Sequence[Path] = ()) -> dict[str, list[Predicted]]:
    """The bundled samples, written for this, and those of the person's own files.

    By kind: `general_text` and `general_chats`.

    Raises:
        UserError: a file that cannot be used, with its line.
    """
    found: dict[str, list[Predicted]] = {"general_text": [], "general_chats": []}
    for sample in read(files([BUNDLED, *more])):
        if not isinstance(sample, Preference):
            found["general_text" if isinstance(sample, Text) else "general_chats"].append(sample)
    return found
