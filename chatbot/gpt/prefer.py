"""Learning what people prefer: from pairs of replies by DPO, from thumbs by KTO.

Both take as reward of a reply y to x how much likelier it has become than it was for the model that training began
with: r = beta * (log P(y|x) - log P_0(y|x)). Of that model no copy is kept: what it says of each reply is noted
before the first step.

- A pair: -log sigmoid(r_good - r_bad) (Direct Preference Optimization, Rafailov et al. 2023, eq. 7), and -log P of
  the good reply a token, so that it does not become less likely together with the bad one (Pang et al. 2024, eq. 2).
- A thumb: 1 - sigmoid(r) of a good reply, 1 - sigmoid(-r) of a bad one (Kahneman-Tversky Optimization, Ethayarajh et
  al. 2024, eq. 8, its reference point z_0 at 0: that is a mean over a batch of other people's replies, nothing in a
  batch of one, and noise in a small one). The sides weigh the same together, however many thumbs each has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chatbot.gpt.chat_tokens import Encoder, Tokens
from chatbot.gpt.preferences import counted
from chatbot.gpt.rows import IGNORED, Writer, fingerprint
from chatbot.gpt.samples import Preference, Turn
from chatbot.gpt.trainer import ExampleTrainer

ANCHOR = 1.0
"""Weight of -log P of the good reply of a pair."""

_SIDES = "sides.npy"
_COUNTS = "counts.json"
_REFERENCE = "reference.npy"


def encoded(
    found: Iterable[Preference], encoder: Encoder, longest: int
) -> tuple[dict[Preference, tuple[Tokens | None, Tokens | None]], int]:
    """The sides of preferences, and how many there are beside that do not fit a row of `longest` tokens."""
    fitting, too_long = {}, 0
    for one in found:
        sides = _encoded(one, encoder, longest)
        if sides is None:
            too_long += 1
        else:
            fitting[one] = sides
    return fitting, too_long


def write(folder: Path, found: Mapping[Preference, tuple[Tokens | None, Tokens | None]], vocabulary: int) -> None:
    """Write preferences, by their sides, as a split."""
    places: list[list[int]] = []
    with Writer(folder, vocabulary) as writer:
        count = 0
        for sides in found.values():
            places.append([-1, -1])
            for side, tokens in enumerate(sides):
                if tokens is not None:
                    writer.add(tokens)
                    places[-1][side] = count
                    count += 1
    np.save(folder / _SIDES, np.asarray(places, dtype=np.int64).reshape(-1, 2))
    (folder / _COUNTS).write_text(json.dumps(counted(found)), encoding="utf-8")


def _encoded(one: Preference, encoder: Encoder, longest: int) -> tuple[Tokens | None, Tokens | None] | None:
    """Both sides after the same messages, the oldest exchanges left out where they are too long; None: too long."""
    system = one.turns[:1] if one.turns[0].role == "system" else ()
    rest = one.turns[len(system) :]
    for begin, turn in enumerate(rest):
        if begin and turn.role != "user":
            continue
        good, bad = (
            None if reply is None else encoder.rendered((*system, *rest[begin:], Turn("assistant", reply)), one.place)
            for reply in (one.good, one.bad)
        )
        if all(side is None or len(side.ids) <= longest for side in (good, bad)):
            return good, bad
    return None


class Preferences:
    """A split of preferences, as `write` leaves it in `folder`.

    Some of them together give, both sides of each beside each other, the good one first: `input_ids`, `labels`
    (shifted, IGNORED where nothing is learned: everywhere of a side that is not known) and `position_ids`, each
    (examples, 2, length) in int64; `reference` (examples, 2), the log P of the sides before training; `weight`
    (examples,).
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.counts: dict[str, int] = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
        kind = np.dtype(self.meta["type"])
        empty = not self.meta["tokens"]
        self._ids: Any = np.zeros(0, kind) if empty else np.memmap(folder / "ids", kind, "r")
        self._learns: Any = np.zeros(0, np.uint8) if empty else np.memmap(folder / "learns", np.uint8, "r")
        self._starts = np.load(folder / "starts.npy")
        self._sides = np.load(folder / _SIDES)
        which = hashlib.sha256(self._sides.tobytes()).hexdigest()
        self.meta["sha256"] = fingerprint((self.meta["sha256"], which))  # the same replies, otherwise preferred
        self._reference: Any = None

    def __len__(self) -> int:
        return len(self._sides)

    @property
    def has_reference(self) -> bool:
        return (self.folder / _REFERENCE).exists()

    def keep_reference(self, values: Tensor) -> None:
        """Note the log P of all sides, (examples, 2), before training."""
        part = self.folder / f"{_REFERENCE}.partial"
        with part.open("wb") as file:
            np.save(file, values.numpy())
        part.replace(self.folder / _REFERENCE)

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        if self._reference is None and self.has_reference:
            self._reference = np.load(self.folder / _REFERENCE)
        places = self._sides[list(numbers)]
        starts, ends = self._starts[places], self._starts[places + 1]
        longest = int((ends - starts)[places >= 0].max())
        ids = np.zeros((*places.shape, longest), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        for number, side in zip(*np.nonzero(places >= 0), strict=True):
            begin, end = starts[number, side], ends[number, side]
            mine = self._ids[begin:end].astype(np.int64)
            ids[number, side, : len(mine)] = mine
            labels[number, side, : len(mine) - 1] = np.where(self._learns[begin + 1 : end], mine[1:], IGNORED)
        positions = np.broadcast_to(np.arange(longest), ids.shape)
        reference = np.zeros(places.shape) if self._reference is None else self._reference[list(numbers)]
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(positions.copy()),
            "reference": torch.from_numpy(reference.astype(np.float32)),
            "weight": torch.from_numpy(self._weights(places)),
        }

    def _weights(self, places: Any) -> Any:
        """1 of a pair and of a thumb of the side that has more of them; those of the other make up for it."""
        good, bad = self.counts.get("good", 0), self.counts.get("bad", 0)
        of_good, of_bad = (max(good, bad) / max(1, side) for side in (good, bad))
        alone = np.where(places[:, 1] < 0, of_good, np.where(places[:, 0] < 0, of_bad, 1.0))
        return alone.astype(np.float32)


def rewards(model: Any, some: dict[str, Tensor]) -> Tensor:
    """log P of the learned tokens of each side, (examples, 2); 0 of a side that is not known."""
    flat = {name: some[name].flatten(0, 1) for name in ("input_ids", "labels", "position_ids")}
    known = (flat["labels"] != IGNORED).any(1)
    nats = model(**{name: value[known] for name, value in flat.items()}).rows
    found: Tensor = nats.new_zeros(len(known)).masked_scatter(known, -nats)
    return found.view(-1, 2)


def losses(gained: Tensor, log_p: Tensor, tokens: Tensor, beta: float) -> Tensor:
    """Loss of each example, (examples,).

    Args:
        gained: log P less what it was before training, (examples, 2), the good side first.
        log_p: itself.
        tokens: how many each side has, (examples, 2); 0 of a side that is not known.
        beta: see the module.
    """
    reward = beta * gained
    good, bad = reward.unbind(1)
    known = tokens > 0
    pair = -functional.logsigmoid(good - bad) - ANCHOR * log_p[:, 0] / tokens[:, 0].clamp(min=1)
    alone = torch.where(known[:, 0], 1 - torch.sigmoid(good), 1 - torch.sigmoid(-bad))
    return torch.where(known.all(1), pair, alone)


class PreferenceTrainer(ExampleTrainer[Preferences]):
    """Trains on preferences."""

    def loss(self, model: Any, some: dict[str, Tensor]) -> Tensor:
        return self._losses(model, some)[0]

    def weight(self, some: dict[str, Tensor]) -> Tensor:
        return some["weight"].sum()

    def measure(self, model: Any, number: int, held: dict[str, Tensor]) -> list[float]:
        loss, right = self._losses(model, held)
        weight = float(held["weight"].sum())
        return [float(loss), weight, weight * float(right.float().mean())]

    def figures(self, sums: list[float]) -> dict[str, float]:
        """The mean loss, and the share whose good reply gained more than its bad one, or than nothing."""
        loss, weight, right = sums
        return {"held_loss": loss / weight, "held_preferred": right / weight}

    def note_reference(self) -> None:
        """Note what the model says of all replies now, where that is not known yet."""
        for split in (self.train_rows, self.held_rows):
            if split.has_reference:
                continue
            model: Any = self.model
            model.to(self.args.device).eval()
            found = torch.zeros(len(split), 2)
            for number in range(len(split)):
                some = self._prepare_inputs(split.batch([number]))
                with torch.no_grad(), self.autocast():
                    found[number] = rewards(model, some)[0].float().cpu()
            split.keep_reference(found)

    def _losses(self, model: Any, some: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with self.autocast():
            log_p = rewards(model, some).float()
        gained = log_p - some["reference"]
        found = losses(gained, log_p, (some["labels"] != IGNORED).sum(2), self.options.beta)
        return (some["weight"] * found).sum(), gained[:, 0] > gained[:, 1]
