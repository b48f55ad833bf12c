"""Bits per byte of held-out samples: how well a model predicts them, whatever its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chatbot.gpt.chat_tokens import Encoder, Tokens, use_template
from chatbot.gpt.prepare import ends_of
from chatbot.gpt.rows import IGNORED
from chatbot.gpt.samples import Predicted, Text
from chatbot.training.interval import Interval

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Scores:
    """-log P in nats of each sample, and the bytes of UTF-8 that it is of: both (samples,), 0 where left out."""

    nats: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def bits_per_byte(self) -> Interval:
        """Of all samples together; the interval is a bootstrap's over samples (Efron 1979)."""
        kept = self.sizes > 0
        scored = Scores(self.nats[kept], self.sizes[kept])
        return _interval(scored, lambda chosen: scored._of(chosen))

    @property
    def count(self) -> int:
        """Samples that were scored."""
        return int((self.sizes > 0).sum())

    def alike(self, other: Scores) -> NDArray[np.bool_]:
        """Of which samples both predicted the same bytes (samples,): with a smaller context, less of a long one."""
        kept: NDArray[np.bool_] = (self.sizes == other.sizes) & (self.sizes > 0)
        return kept

    def less_than(self, other: Scores) -> Interval:
        """The bits per byte of `other`, of samples that are alike, taken from these: below 0, these are better."""
        kept = self.alike(other)
        one, two = (Scores(scores.nats[kept], scores.sizes[kept]) for scores in (self, other))
        return _interval(one, lambda chosen: one._of(chosen) - two._of(chosen))

    def _of(self, chosen: NDArray[np.int64]) -> float:
        return float(self.nats[chosen].sum() / math.log(2) / self.sizes[chosen].sum())


def score(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Predicted],
    *,
    longest: int,
    system: str,
    precision: str,
    tell: Callable[[str, float | None], None],
) -> Scores:
    """Score samples: of a text, all of it; of a conversation, the replies with their ends.

    What is longer than `longest` tokens is scored in parts, as it is in training; `system` is the prompt of
    conversations that have none.
    """
    use_template(tokenizer)
    encoder = Encoder(tokenizer, ends_of(tokenizer), longest)
    nats, sizes = np.zeros(len(samples)), np.zeros(len(samples))
    for number, sample in enumerate(samples):
        tell("Predicting what was held out", number / len(samples))
        if isinstance(sample, Text):
            parts = [encoder.text(sample)]
        else:
            parts = list(encoder.dialogue(sample.with_system(system)))
        for part in parts:
            nats[number] += sum(_nats(model, piece, precision) for piece in _pieces(part, longest))
            sizes[number] += part.size
    return Scores(nats, sizes)


def _pieces(tokens: Tokens, longest: int) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of what is seen at once; each piece is predicted up to the first token of the next."""
    labels = [token if learned else IGNORED for token, learned in zip(tokens.ids, tokens.learns, strict=True)]
    pieces = []
    for at in range(0, len(tokens.ids) - 1, longest):
        ids = tokens.ids[at : at + longest]
        following = labels[at + 1 : at + longest + 1]
        pieces.append((ids[: len(following)], following))
    return [(ids, following) for ids, following in pieces if any(label != IGNORED for label in following)]


@torch.inference_mode()
def _nats(model: Any, piece: tuple[list[int], list[int]], precision: str) -> float:
    ids, labels = (torch.tensor(part, device=model.device) for part in piece)
    chosen = labels != IGNORED
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=chosen.nonzero()[:, 0]).logits[0]
    return float(torch.nn.functional.cross_entropy(logits.float(), labels[chosen], reduction="sum"))


def _interval(scores: Scores, figure: Callable[[NDArray[np.int64]], float]) -> Interval:
    count = len(scores.nats)
    random = np.random.default_rng(0)
    drawn = [figure(random.integers(0, count, count)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(figure(np.arange(count)), float(low), float(high))
