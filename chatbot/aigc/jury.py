"""Models side by side on the pictures of a folder that are held out, by one judge, with intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from chatbot.aigc import captions, dataset, judge
from chatbot.aigc.distances import kid
from chatbot.aigc.evaluate import Measurement, judge_of, spread
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.text import TextEncoder
from chatbot.errors import UserError
from chatbot.training.interval import Interval

Tell = Callable[[str, float | None], None]

FEWEST = 40
"""Held-out pictures below which nothing can be said."""

_MOST = 400
_RESAMPLES = 200
_CAPTIONS = 60


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of a model, a row a held-out picture.

    Attributes:
        made, real: features of its picture of the same caption and style, and of the real one, (n, d).
        found: whether the caption is the nearest of a hundred, or of all there are, to its picture, (n,).
        apart: mean distance between four pictures of one caption, (captions,).
        sheet: some of its pictures.
    """

    name: str
    made: NDArray[np.float64]
    real: NDArray[np.float64]
    found: NDArray[np.bool_]
    apart: NDArray[np.float64]
    sheet: Image.Image

    def figures(self) -> dict[str, float]:
        return {
            "kid_like": round(kid(self.real, self.made), 5),
            "retrieval": round(float(self.found.mean()), 4),
            "diversity": round(float(self.apart.mean()), 3),
        }


class Jury:
    """Held-out pictures of a folder, and the judge of it.

    Args:
        data: the folder.
        encoder: of captions.
        channels: of the pictures of the models that are looked at.

    Raises:
        UserError: the folder cannot be used, holds too few pictures for some to be held out, or other ones.
    """

    def __init__(self, data: Path, encoder: Path, channels: int, tell: Tell, say: Callable[[str], None]) -> None:
        self._encoder = encoder
        with ExitStack() as held:
            scratch = held.enter_context(tempfile.TemporaryDirectory())
            self.real = dataset.prepare(data, Path(scratch), judge.SIZE, tell, say)
            self.numbers = spread([*self.real.split("drawing"), *self.real.split("concept")], _MOST)
            if len(self.numbers) < FEWEST:
                raise UserError(
                    f"Of {len(self.real.items):,} pictures, {len(self.numbers)} are held out; {FEWEST} are needed to "
                    "say whether a model is better. `chatbot train aigc` trains without a verdict."
                )
            if self.real.pictures.shape[-1] != channels:
                theirs, ours = ("transparent", "opaque") if channels == 3 else ("opaque", "transparent")
                raise UserError(
                    f"The pictures in {data} are {theirs}, and those of the model in use are {ours}; `chatbot train "
                    "aigc` begins a new one."
                )
            self._read = captions.read(self.real.items, "text", lambda: TextEncoder(encoder), tell)
            self._judge = judge_of(self.real, self._read, tell)
            self._scratch = held.pop_all()

    def close(self) -> None:
        self._scratch.close()

    @torch.inference_mode()
    def look(self, folder: Path, name: str, tell: Tell) -> Looked:
        """Raises ModelError where the model does not load, UserError where it was trained without captions."""
        imagination = Imagination(folder, self._encoder, name)
        if imagination.model.conditioning != "text":
            raise UserError(f"{name} was trained without captions, and what is judged is whether it shows them.")
        measured = Measurement(imagination, self.real, self._read, self._judge, tell)
        made = measured.made(self.numbers)
        return Looked(
            name,
            measured.features(made),
            measured.features(measured.images(self.numbers)),
            measured.found(made, self.numbers)[:, 0],
            measured.apart(spread(self.real.split("train"), _CAPTIONS)),
            measured.shown(made),
        )


def kid_difference(after: Looked, before: Looked) -> Interval:
    """KID of one model less that of another, over random halves of the pictures; below 0, the first is better."""
    random = np.random.default_rng(0)
    count = len(after.made)
    drawn = []
    for _ in range(_RESAMPLES):
        half = random.permutation(count)[: count // 2]
        drawn.append(kid(after.real[half], after.made[half]) - kid(before.real[half], before.made[half]))
    value = kid(after.real, after.made) - kid(before.real, before.made)
    return _interval(value, drawn)


def retrieval_difference(after: Looked, before: Looked) -> Interval:
    """Share of captions found, of one model less that of another (paired bootstrap); above 0, the first is better."""
    random = np.random.default_rng(0)
    gained = after.found.astype(float) - before.found
    drawn = [float(random.choice(gained, len(gained)).mean()) for _ in range(_RESAMPLES * 10)]
    return _interval(float(gained.mean()), drawn)


def _interval(value: float, drawn: Any) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))
