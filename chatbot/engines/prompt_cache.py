"""Prompts a model has read, kept on disk over a restart: a long conversation goes on without being read again."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

WORTH_KEEPING = 256
"""Tokens; fewer are read again sooner than a file is fetched and watched over."""
_MOST_BYTES = 2**30
_HEADER_BYTES = 64
_WRITING_S = 60
_GENERATION = "generation"


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """A file of llama.cpp's with the state of a model that has read `tokens`."""

    file: Path
    tokens: list[int]


class PromptCache:
    """The prompts kept for one model.

    Each is a file written by llama.cpp and beside it one of ours, written last, that says what it holds: a file
    without its description was cut short, and llama.cpp crashes on such.

    Args:
        folder: of all models' prompts.
        model: a name that changes with the model's weights and with the format of the files.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._all = folder
        self.folder = folder / model
        with suppress(OSError):  # then nothing is kept
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def generation(self) -> str:
        """Changes when what was kept is forgotten: what was read before that must not be kept any more."""
        try:
            return (self._all / _GENERATION).read_text()
        except OSError:
            return ""

    def best(self, prompt: Sequence[int]) -> tuple[KeptPrompt | None, int]:
        """The one that begins like `prompt` for longest, and for how many tokens."""
        best: KeptPrompt | None = None
        length = 0
        for description in self.folder.glob("*.json"):
            kept = _read(description)
            if kept is not None and (common := common_prefix(kept.tokens, prompt)) > length:
                best, length = kept, common
        return best, length

    def new_file(self) -> Path:
        """A file to be written, then given to `keep`."""
        return self.folder / f"{secrets.token_hex(8)}.bin"

    def keep(self, prompt: KeptPrompt, generation: str) -> None:
        """Keep a written file, if it holds the prompt, in place of those it goes on from; drop the oldest where there
        are too many bytes."""
        if generation != self.generation() or not _holds(prompt):
            prompt.file.unlink(missing_ok=True)
            return
        for description in self.folder.glob("*.json"):
            kept = _read(description)
            if kept is None or common_prefix(kept.tokens, prompt.tokens) == len(kept.tokens):
                self.drop(description.with_suffix(".bin"))
        size = prompt.file.stat().st_size
        prompt.file.with_suffix(".json").write_text(json.dumps({"bytes": size, "tokens": prompt.tokens}))
        total = 0
        written = {file: file.stat() for file in self._all.glob("*/*.bin")}
        for file in sorted(written, key=lambda file: written[file].st_mtime, reverse=True):
            total += written[file].st_size
            cut_short = not file.with_suffix(".json").exists() and time.time() - written[file].st_mtime > _WRITING_S
            if (total > _MOST_BYTES and file != prompt.file) or cut_short:
                self.drop(file)

    def drop(self, file: Path) -> None:
        for part in (file.with_suffix(".json"), file):
            part.unlink(missing_ok=True)


def forget_prompts(folder: Path) -> None:
    """Erase everything kept under `folder`, and let no running process keep what it has read so far."""
    with suppress(FileNotFoundError):
        generation = folder / _GENERATION
        if folder.exists():
            generation.write_text(secrets.token_hex(8))
        for model in folder.iterdir():
            if model.is_dir():
                shutil.rmtree(model, ignore_errors=True)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _holds(prompt: KeptPrompt) -> bool:
    """Whether its file begins, behind a header, with its tokens: the slot may have read others since."""
    tokens = array("i", prompt.tokens).tobytes()
    with prompt.file.open("rb") as file:
        return tokens in file.read(_HEADER_BYTES + len(tokens))


def _read(description: Path) -> KeptPrompt | None:
    file = description.with_suffix(".bin")
    try:
        said = json.loads(description.read_text())
        if file.stat().st_size == said["bytes"]:
            return KeptPrompt(file, said["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
