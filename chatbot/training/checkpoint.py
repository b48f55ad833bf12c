"""Checkpoints: a folder of safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatbot.errors import UserError

TENSORS = "state.safetensors"
STATE = "state.json"
_PARTIAL, _OLD = ".partial", ".old"


def save(
    folder: Path, number: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write checkpoint `number` under `folder`; all but the newest `keep` are deleted after."""
    place = folder / f"{number:08d}"
    write(place, tensors, state)
    keep_newest(folder, keep)
    return place


def write(place: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write one folder whole; one that stands there already is replaced."""
    with whole(place) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / TENSORS)
        (part / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


@contextmanager
def whole(place: Path) -> Iterator[Path]:
    """A folder to fill, which stands at `place` once it is on the disk, or not at all; what stood there is replaced.

    It is filled beside its place, and renamed at the end; where filling it raises, what stood there stays.
    """
    part = place.with_name(place.name + _PARTIAL)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        publish(part, place)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def publish(part: Path, place: Path) -> None:
    """Move a folder that is filled to its place, its bytes on the disk first."""
    for path in part.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    before = _before(place)
    if place.exists():
        shutil.rmtree(before, ignore_errors=True)
        place.rename(before)
    part.rename(place)
    shutil.rmtree(before, ignore_errors=True)


def standing(place: Path) -> Path:
    """Where a folder is read from: what stood there before, where a kill came between moving that away and putting
    the new one there."""
    return _before(place) if not place.exists() and _before(place).exists() else place


def keep_newest(folder: Path, keep: int) -> None:
    for old in numbers(folder)[:-keep]:
        _forget(folder / f"{old:08d}")


def numbers(folder: Path) -> list[int]:
    """The checkpoints there are, the newest last."""
    if not folder.is_dir():
        return []
    names = {path.name.removesuffix(_OLD) for path in folder.iterdir()}
    return sorted(int(name) for name in names if name.isdigit())


def drop_after(folder: Path, number: int) -> None:
    """Forget the checkpoints that are newer: training went back beyond them."""
    for newer in numbers(folder):
        if newer > number:
            _forget(folder / f"{newer:08d}")


def load(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Raises UserError where it is missing or damaged."""
    place = standing(place)
    try:
        state: dict[str, Any] = json.loads((place / STATE).read_text(encoding="utf-8"))
        return load_file(place / TENSORS), state
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"The checkpoint {place} cannot be read: {error}.") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The moments of an optimizer, by the number of their parameter."""
    return {
        f"{prefix}/{number}/{name}": value
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, in the memory layout of the weights: fused steps count on that."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}/"):
            _, number, name = key.rsplit("/", 2)
            like = weights[int(number)]
            held = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(number), {})[name] = held
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _before(place: Path) -> Path:
    """Where a folder stands while another takes its place."""
    return place.with_name(place.name + _OLD)


def _forget(place: Path) -> None:
    for path in (place, _before(place)):
        shutil.rmtree(path, ignore_errors=True)
