"""Several GPUs under torchrun: every process takes its part of each batch, and gradients are averaged.

Averaged by hand and not by DistributedDataParallel, whose hooks count on one backward pass for each forward pass; the
gradient penalties and the frozen passes through D and A_G have others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(hours=2)
"""How long processes wait for the first, which prepares the data; torch's ten minutes are too few for much of it."""


def start() -> tuple[int, int]:
    """Join the other processes where torchrun started us; gives our number and how many there are."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
    return distributed.get_rank(), distributed.get_world_size()


def finish() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def together() -> bool:
    """Whether there are other processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if together() else 1


def wait() -> None:
    """Until all have come here."""
    if together():
        distributed.barrier()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    if not together():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def share(tensors: Iterable[Tensor]) -> None:
    """Give everyone the first process's tensors, in place."""
    if together():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def agree(value: float) -> float:
    """The first process's number, for decisions all must take alike."""
    if not together():
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    held = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(held, 0)
    return float(held.item())


def any_of(flag: bool) -> bool:
    """Whether one of the processes says yes: a signal may reach only some."""
    if not together():
        return flag
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    held = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(held)
    return bool(held.item() > 0)
