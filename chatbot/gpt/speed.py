"""How much a model computes and needs, before any of it is done."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any, Literal

import psutil
import torch

from chatbot.gpt.networks import LOGITS_AT_ONCE, parameters
from chatbot.gpt.options import Options
from chatbot.gpt.rows import IGNORED

PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
    "3090": 71e12,
    "T4": 65e12,
}
"""Dense bf16 (or fp16) FLOPs a second, as the makers state them."""

_CPU_TOKENS = 2048
"""A CPU is no quicker with more at once."""

_SHARE = 0.85  # of the free memory
_OPTIMIZER_BYTES = 16  # of a weight: itself, its gradient, and AdamW's two moments, in float32


def precision() -> Literal["bf16", "fp32"]:
    """bf16 where the hardware computes it; elsewhere it is slower."""
    quick = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if quick else "fp32"


def flops_a_token(model: Any, length: int) -> float:
    """Of a training step, forward and backward: 6 a weight, and attention (Chowdhery et al. 2022, appendix B)."""
    config = model.config.get_text_config()
    total, _ = parameters(model)
    embeddings = 0 if config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    return float(6 * (total - embeddings) + 12 * config.num_hidden_layers * config.hidden_size * length)


def peak_flops() -> float:
    """Of this machine's GPU; 0 where there is none, or it is not known."""
    if not torch.cuda.is_available():
        return 0.0
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAKS.items() if known in name), 0.0)


def memory(model: Any, options: Options, micro_rows: int) -> float:
    """Bytes that training takes, about: weights, gradients, moments, and what the rows at once leave behind."""
    total, trained = parameters(model)
    return (
        4.0 * (total - trained) + _OPTIMIZER_BYTES * trained + micro_rows * options.block * _a_token(model, options)
    )


def find_micro_rows(model: Any, options: Options, device: torch.device, ranks: int) -> int:
    """Rows to compute at once: as many as fit and pay.

    On a GPU, one and two rows are tried, and what they took is extrapolated; on a CPU it is estimated.
    """
    if options.stage == "prefer":  # an example is two replies
        rows = replace(options, stage="finetune", batch_tokens=2 * options.batch_tokens)
        return max(1, find_micro_rows(model, rows, device, ranks) // 2)
    most = max(1, options.rows_a_step // ranks)
    if device.type == "cuda":
        return max(1, min(most, _fitting_on_gpu(model, options, device)))
    room = psutil.virtual_memory().available * _SHARE - memory(model, options, 0)
    fitting = int(room / (options.block * _a_token(model, options)))
    return max(1, min(most, fitting, max(1, _CPU_TOKENS // options.block)))


def _a_token(model: Any, options: Options) -> float:
    """Bytes that a token leaves behind for the backward pass, about."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    kept = config.num_hidden_layers * (12 * config.hidden_size + 4 * wide)
    logits = 2 * config.vocab_size * min(1.0, LOGITS_AT_ONCE / options.block)
    return float((2 if options.precision == "bf16" else 4) * kept + 4 * logits)


def _fitting_on_gpu(model: Any, options: Options, device: torch.device) -> int:
    model.to(device).train()
    peaks = []
    for rows in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        ids = torch.randint(0, model.config.get_text_config().vocab_size, (rows, options.block), device=device)
        positions = torch.arange(options.block, device=device).expand(rows, -1)
        labels = ids.clone()
        labels[:, -1] = IGNORED
        with torch.autocast("cuda", torch.bfloat16, enabled=options.precision == "bf16"):
            loss = model(input_ids=ids, labels=labels, position_ids=positions).loss
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated(device))
    model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    _, trained = parameters(model)
    room = torch.cuda.mem_get_info(device)[0] * _SHARE - (_OPTIMIZER_BYTES - 4) * trained
    a_row = max(1, peaks[1] - peaks[0])
    return int((room - (peaks[0] - a_row)) / a_row)
