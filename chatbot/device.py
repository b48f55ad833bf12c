"""What a device can do for torch."""

from __future__ import annotations

import torch


def computes_bf16(device: torch.device) -> bool:
    """Whether it computes in bf16 and does not only emulate it, or convert, which is slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "mps" or bool(torch.cpu._is_avx512_bf16_supported())


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU, or in the computer, of which torch has no error of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    said = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")  # the last, cuBLAS
    return any(one in text for one in said)
