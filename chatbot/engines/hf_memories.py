"""What has been read of conversations: token ids, and their keys and values. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # untyped there
    """Keys and values in buffers with room to grow: a new token is written beside the others, which stay."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[no-untyped-call]  # untyped there
        self._length = 0
        self._room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **keywords: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, each (batch, heads, new tokens, head size); returns all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        if self._room is None or end > self._room[0].shape[-2]:
            self._grow(key_states, value_states, end)
        assert self._room is not None
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., start:end, :] = new
        return self._show(end)

    def get_seq_length(self) -> int:
        return self._length

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens."""
        if max_length < self._length:
            self._show(max_length)

    def _grow(self, keys: torch.Tensor, values: torch.Tensor, needed: int) -> None:
        capacity = max(256, 2 ** (needed - 1).bit_length())
        old = self._room
        room = tuple(new.new_empty((*new.shape[:-2], capacity, new.shape[-1])) for new in (keys, values))
        if old is not None:
            for target, source in zip(room, old, strict=True):
                target[..., : self._length, :] = source[..., : self._length, :]
        self._room = room[0], room[1]

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._room is not None
        self._length = length
        keys, values = (room[..., :length, :] for room in self._room)
        self.keys, self.values = keys, values
        return keys, values


@dataclass(slots=True, eq=False)
class Memory:
    """What a conversation has been read of: token ids and their keys and values."""

    ids: list[int] = field(default_factory=list)
    cache: DynamicCache | None = None
    busy: bool = False


class Memories:
    """Of a model's conversations, `limit` of them, and more only while more replies are under way."""

    def __init__(self, model: Any, limit: int) -> None:
        self._model, self._limit = model, limit
        self.all: list[Memory] = []  # the one used last at the end

    @contextmanager
    def of(self, ids: list[int]) -> Iterator[Memory]:
        """The memory that shares the longest beginning with `ids`, cut down to that, for a reply's time."""
        memory = self._best(ids)
        memory.busy = True
        try:
            yield memory
        finally:
            memory.busy = False
            idle = [one for one in self.all if not one.busy]
            for oldest in idle[: max(0, len(self.all) - self._limit)]:
                self.all.remove(oldest)

    def _best(self, ids: list[int]) -> Memory:
        """One that shares less than half of itself is another conversation's: it is left alone while there is room,
        and what is shared is copied. At least the last token is read again, for its logits."""

        def shared(memory: Memory) -> int:
            return min(_common(memory.ids, ids), len(ids) - 1)

        idle = [memory for memory in self.all if not memory.busy]
        oldest = idle[0] if idle and len(self.all) >= self._limit else None  # given up, where there is no room
        best = max(self.all, key=lambda memory: (shared(memory), not memory.busy), default=Memory())
        common = shared(best)
        if best is oldest or (best in idle and 2 * common >= len(best.ids)):
            self.all.remove(best)
            if common < len(best.ids):
                if _can_crop(best.cache):
                    best.cache.crop(common)
                    best.ids = best.ids[:common]
                else:
                    best = Memory()
        else:
            if oldest is not None:
                self.all.remove(oldest)
            best = self._copy(best, common)
        if not best.ids:
            best.cache = _new_cache(self._model)
        self.all.append(best)
        return best

    def _copy(self, memory: Memory, length: int) -> Memory:
        """A memory of the first `length` tokens of another; of none, where its layers cannot go back to them."""
        if not length or not _can_crop(memory.cache):
            return Memory()
        cache = _new_cache(self._model)
        new: Any
        old: Any  # those that can be cropped hold keys and values
        for new, old in zip(cache.layers, memory.cache.layers, strict=True):
            if old.is_initialized:
                new.update(old.keys[..., :length, :], old.values[..., :length, :])
        return Memory(memory.ids[:length], cache)


def _common(one: list[int], other: list[int]) -> int:
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(index for index in range(length) if one[index] != other[index])


def _new_cache(model: Any) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache


def _can_crop(cache: DynamicCache | None) -> TypeGuard[DynamicCache]:
    """Layers with a window or a state of another kind forget: they cannot go back to an earlier token."""
    return cache is not None and all(type(layer) is RoomyLayer for layer in cache.layers)
