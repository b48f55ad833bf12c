"""How much a model computes and needs, before any of it is done."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import psutil
import torch
from torch import distributed, nn

from chatbot.device import computes_bf16, is_out_of_memory
from chatbot.gpt.networks import LOGITS_AT_ONCE, parameters
from chatbot.gpt.options import Options
from chatbot.gpt.rows import IGNORED
from chatbot.training import parallel

PEAKS = {
    "H200": 989e12,
    "H200 NVL": 835e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
}
"""Dense bf16 (or fp16) FLOPs a second, as the makers state them."""

_OTHERS = "MIG|Laptop|Ti|D"  # after the name of a GPU: a part of it, or another one

_CPU_TOKENS = 2048
"""A CPU is no quicker with more at once."""

_SHARE = 0.85  # of the free memory
_OPTIMIZER_BYTES = 16  # of a weight: itself, its gradient, and AdamW's two moments, in float32


def precision() -> Literal["bf16", "fp32"]:
    """bf16 where the hardware computes it; elsewhere it is slower."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if computes_bf16(device) else "fp32"


def flops_a_token(model: Any, length: int) -> float:
    """Of a training step: 6N + 12LHQT (Chowdhery et al. 2022, appendix B).

    Of the 6 a weight, 2 are its gradient's, which a frozen one has not; embeddings are looked up.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings().weight
    looked_up = {one.weight for one in model.modules() if isinstance(one, nn.Embedding) and one.weight is not head}
    weights = sum(
        (6 if weight.requires_grad else 4) * weight.numel()
        for weight in model.parameters()
        if weight not in looked_up
    )
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return float(weights + 12 * config.num_hidden_layers * width * length)


def peak_flops() -> float:
    """Of this machine's GPU; 0 where there is none, or it is not known."""
    return peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else 0.0


def peak_of(gpu: str) -> float:
    """Of a GPU, by what it is called; 0 where it is not known."""
    for name in sorted(PEAKS, key=len, reverse=True):
        if re.search(rf"\b{name}\b(?!.*\b({_OTHERS})\b)", gpu):
            return PEAKS[name]
    return 0.0


def memory(model: Any, options: Options, micro_rows: int) -> float:
    """Bytes that training takes, about: weights, gradients, moments, and what the rows at once leave behind."""
    total, trained = parameters(model)
    return (
        4.0 * (total - trained) + _OPTIMIZER_BYTES * trained + micro_rows * options.block * _a_token(model, options)
    )


def find_micro_rows(model: Any, options: Options, device: torch.device, ranks: int) -> int:
    """Rows to compute at once: as many as fit and pay, in each of the processes.

    On a GPU some are tried; on a CPU, and where the processes share the weights, which no one has room for alone, it
    is estimated.
    """
    if options.stage == "prefer":  # an example is two replies
        rows = replace(options, stage="finetune", batch_tokens=2 * options.batch_tokens)
        return max(1, find_micro_rows(model, rows, device, ranks) // 2)
    most = max(1, options.rows_a_step // ranks)
    if most == 1:
        return 1
    tried = device.type == "cuda" and not options.fsdp
    found = _tried(model, options, device, ranks) if tried else _estimated(model, options, device, ranks)
    return _least(max(1, min(most, found)))


def rows_within(free: Callable[[], float], taken: Callable[[int], float], more: float) -> int:
    """How many rows can be computed at once, by what one and two take.

    Args:
        free: bytes that are free now.
        taken: computes so many rows, forward and backward; gives the bytes that this took at most, while it lasted.
        more: bytes that training takes beside, and that are still free.
    """
    taken(1)  # from now on the gradients are there
    one, two = taken(1), taken(2)
    a_row = max(1.0, two - one)
    return int(((free() - more) * _SHARE - max(0.0, one - a_row)) / a_row)


def _a_token(model: Any, options: Options) -> float:
    """Bytes that a token leaves behind for the backward pass, about."""
    config = model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    kept = config.num_hidden_layers * (12 * config.hidden_size + 4 * wide)
    logits = 2 * config.vocab_size * min(1.0, LOGITS_AT_ONCE / options.block)
    return float((2 if options.precision == "bf16" else 4) * kept + 4 * logits)


def _estimated(model: Any, options: Options, device: torch.device, ranks: int) -> int:
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    room = free * _SHARE - memory(model, options, 0) / (ranks if options.fsdp else 1)
    fitting = int(room / (options.block * _a_token(model, options)))
    return fitting if on_gpu else min(fitting, max(1, _CPU_TOKENS // options.block))


def _tried(model: Any, options: Options, device: torch.device, ranks: int) -> int:
    """On a GPU; 1 where not even what is tried fits: training says then what is too much."""

    def taken(rows: int) -> float:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _learn(model, options, rows)
        return torch.cuda.max_memory_allocated(device) - before

    def free() -> float:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]

    _, trained = parameters(model)
    more = (8 if ranks == 1 else 12) * trained  # AdamW's moments, and the gradients once more, as processes send them
    try:
        model.to(device).train()
        return rows_within(free, taken, more)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    return 1


def _learn(model: Any, options: Options, rows: int) -> None:
    """Forward and backward of some rows, as in training: of two samples each, between which there is a mask."""
    ids = torch.randint(0, model.config.get_text_config().vocab_size, (rows, options.block), device=model.device)
    positions = (torch.arange(options.block, device=model.device) % -(-options.block // 2)).expand(rows, -1)
    labels = ids.clone()
    labels[:, -1] = IGNORED
    with (
        torch.compiler.set_stance("force_eager"),  # for other numbers of rows than these it would be compiled anew
        torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"),
    ):
        loss = model(input_ids=ids, labels=labels, position_ids=positions).loss
    loss.backward()


def _least(value: int) -> int:
    """The least of the processes' numbers."""
    if not parallel.together():
        return value
    held = torch.tensor(value, device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(held, distributed.ReduceOp.MIN)
    return int(held)
