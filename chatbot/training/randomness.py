"""All chance in training comes from (seed, step, rank): a resumed run needs no random state to go on alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The source of everything random in a step of a process."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 1_009 + rank)


def order_of(numbers: Sequence[int], batch: int, step: int, seed: int) -> list[int]:
    """The whole batch of a step: a new order every epoch, each picture once in it; batches run across its end."""
    count, chosen = len(numbers), []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        chosen.append(numbers[_order(count, epoch, seed)[place]])
    return chosen


@lru_cache(maxsize=4)
def _order(count: int, epoch: int, seed: int) -> list[int]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7_919 + epoch))
    return order.tolist()
