"""Token ids in memory maps, packed into rows; what shares a row does not see each other.

A split of the data is a folder with `ids` (uint16 or uint32), `learns` (uint8, one a token), `starts` (where each
sample begins) and `sizes` (bytes of text that each teaches).
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatbot.gpt.chat_tokens import Tokens

IGNORED = -100
"""The label of what is not learned, as transformers has it."""

_META = "meta.json"


class Writer:
    """Appends samples to a split in `folder`; `vocabulary` decides how wide an id is."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._type = "H" if vocabulary <= 2**16 else "I"
        self._ids, self._learns = (folder / "ids").open("wb"), (folder / "learns").open("wb")
        self._starts, self._sizes = array("q", [0]), array("q")
        self._digest = hashlib.sha256()
        self._targets = 0

    def add(self, tokens: Tokens) -> None:
        ids, learns = array(self._type, tokens.ids).tobytes(), bytes(tokens.learns)
        self._ids.write(ids)
        self._learns.write(learns)
        self._digest.update(ids + learns)
        self._starts.append(self._starts[-1] + len(tokens.ids))
        self._sizes.append(tokens.size)
        self._targets += sum(tokens.learns)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        self._learns.close()
        if kind is None:
            np.save(self._folder / "starts.npy", np.asarray(self._starts, dtype=np.int64))
            np.save(self._folder / "sizes.npy", np.asarray(self._sizes, dtype=np.int64))
            meta = {
                "type": "uint16" if self._type == "H" else "uint32",
                "samples": len(self._sizes),
                "tokens": self._starts[-1],
                "targets": self._targets,
                "bytes": sum(self._sizes),
                "sha256": self._digest.hexdigest(),
            }
            (self._folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens `begin` to `end` of the split, all of sample `sample`."""

    begin: int
    end: int
    sample: int


class Rows:
    """A split as rows of `length` tokens. Row n gives ids, labels and positions, each (length,) in int64.

    `labels` are shifted already: label t is the token after token t, or IGNORED where it is not learned or belongs
    to another sample. Positions begin anew with every sample: by them alone transformers keeps samples apart.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
        self.length = length
        empty = not self.meta["tokens"]
        kind = np.dtype(self.meta["type"])
        self._ids: NDArray[Any] = np.zeros(0, kind) if empty else np.memmap(folder / "ids", kind, "r")
        self._learns: NDArray[Any] = np.zeros(0, np.uint8) if empty else np.memmap(folder / "learns", np.uint8, "r")
        self._starts = np.load(folder / "starts.npy")
        self._sizes = np.load(folder / "sizes.npy")
        self._rows = _packed(self._starts, self._learns, length)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without what fills them up."""
        return sum(piece.end - piece.begin for row in self._rows for piece in row)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        ids = np.zeros(self.length, dtype=np.int64)
        labels = np.full(self.length, IGNORED, dtype=np.int64)
        positions = np.zeros(self.length, dtype=np.int64)
        at = 0
        for piece in self._rows[number]:
            count = piece.end - piece.begin
            ids[at : at + count] = self._ids[piece.begin : piece.end]
            labels[at : at + count] = self._labels(piece)
            positions[at : at + count] = np.arange(count)
            at += count
        positions[at:] = np.arange(self.length - at)
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(positions),
        }

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Some rows, each value (rows, length)."""
        rows = [self[number] for number in numbers]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def unpack(self) -> None:
        """Let no samples share a row."""
        self._rows = [[piece] for row in self._rows for piece in row]

    def bytes_of(self, number: int) -> float:
        """Bytes of text that a row teaches; a share of its sample's where that spans several rows."""
        total = 0.0
        for piece in self._rows[number]:
            begin, end = self._starts[piece.sample], self._starts[piece.sample + 1]
            targets = int(np.count_nonzero(self._learns[begin + 1 : end]))
            mine = int(np.count_nonzero(self._labels(piece) != IGNORED))
            total += float(self._sizes[piece.sample]) * mine / max(1, targets)
        return total

    def samples_of(self, number: int) -> list[int]:
        """The samples that have a part in a row."""
        return [piece.sample for piece in self._rows[number]]

    def _labels(self, piece: _Piece) -> NDArray[Any]:
        labels = np.full(piece.end - piece.begin, IGNORED, dtype=np.int64)
        after = min(piece.end + 1, int(self._starts[piece.sample + 1]))
        ids = self._ids[piece.begin + 1 : after].astype(np.int64)
        learns = self._learns[piece.begin + 1 : after]
        labels[: len(ids)] = np.where(learns == 1, ids, IGNORED)
        return labels


def _packed(starts: NDArray[Any], learns: NDArray[Any], length: int) -> list[list[_Piece]]:
    """Samples cut to pieces of at most a row, and the pieces packed by best fit, the longest first.

    Pieces that teach nothing are left out, so that no row is without a target.
    """
    pieces = []
    for sample in range(len(starts) - 1):
        begin, end = int(starts[sample]), int(starts[sample + 1])
        for at in range(begin, end - 1, length):  # the last token of a sample predicts nothing
            stop = min(at + length, end)
            if learns[at + 1 : min(stop + 1, end)].any():
                pieces.append(_Piece(at, stop, sample))
    pieces.sort(key=lambda piece: piece.begin - piece.end)
    rows: list[list[_Piece]] = []
    open_rows: defaultdict[int, list[int]] = defaultdict(list)  # by the room that is left
    rooms: list[int] = []
    for piece in pieces:
        size = piece.end - piece.begin
        place = bisect_left(rooms, size)
        if place < len(rooms):
            room = rooms[place]
            row = open_rows[room].pop()
            if not open_rows[room]:
                del open_rows[room], rooms[place]
            rows[row].append(piece)
        else:
            room, row = length, len(rows)
            rows.append([piece])
        left = room - size
        if left > 1:
            if left not in open_rows:
                insort(rooms, left)
            open_rows[left].append(row)
    return rows


def fingerprint(splits: Iterable[str]) -> str:
    """SHA-256 of everything in some splits, by those of each."""
    return hashlib.sha256("".join(splits).encode()).hexdigest()
