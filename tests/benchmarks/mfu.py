"""Pretraining beside a plain PyTorch loop of the same network: tokens a second, and of a GPU the share of its peak.

`python -m tests.benchmarks.mfu [--minutes N] [--size 124m] [--batch-tokens N] [--vocabulary N] [--compile]`: on
whatever device there is. The plain loop goes on for half of the time; `chatbot train gpt pretrain` then takes as many
steps of as many tokens, from text of random words. The first fifth of the steps is for warming up, on both sides.

The plain loop is in bf16 where the hardware is quick at it, with PyTorch's attention (a flash kernel on a GPU), AdamW
fused, windows of random tokens, and as many rows at once as fit. The command is as it sets itself up; that it reads
its data, keeps texts in a row apart and saves itself is in its figure.

MFU is tokens a second times the FLOPs of one (6N + 12LHQT: Chowdhery et al. 2022, appendix B), over the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

WARM = 0.2  # of the steps
FEWEST = 3  # steps
CPU_TOKENS = 2048  # a step: the sizes' own are for GPUs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, both sides together (default 4)")
    parser.add_argument("--size", default="124m")
    parser.add_argument("--batch-tokens", type=int, help="tokens a step (default: the size's own, on a CPU fewer)")
    parser.add_argument("--vocabulary", type=int, help="default: the size's own")
    parser.add_argument("--compile", action="store_true", help="both sides")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)  # in the process that measures it
    arguments = parser.parse_args()
    print(json.dumps(plain(arguments)) if arguments.plain else table(arguments))


def table(arguments: argparse.Namespace) -> str:
    """Both sides measured, as a Markdown table."""
    command = [sys.executable, "-m", "tests.benchmarks.mfu", "--plain", *sys.argv[1:]]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    print(theirs, file=sys.stderr, flush=True)
    pace = ours(arguments, theirs)
    sides = (("`chatbot train gpt pretrain`", pace), ("a plain loop", theirs["pace"]))
    heads = [theirs["what"], "tokens/s", *(["MFU"] if theirs["peak"] else []), "ratio"]
    lines = [heads, ["---"] * len(heads)]
    for name, tokens in sides:
        share = [f"{tokens * theirs['flops'] / theirs['peak']:.1%}"] if theirs["peak"] else []
        lines.append([name, f"{tokens:,.0f}", *share, f"{tokens / theirs['pace']:.3f}"])
    note = [] if theirs["peak"] else ["", "MFU needs a device whose peak is known (`chatbot/gpt/speed.py`)."]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), *note])


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """The loop: what it ran on, its tokens a second, its steps, and by what its MFU is computed."""
    import torch

    from chatbot.gpt import speed
    from chatbot.gpt.options import pretraining

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    tokens = arguments.batch_tokens or (None if on_gpu else CPU_TOKENS)
    asked = pretraining(arguments.size, batch_tokens=tokens, vocabulary=arguments.vocabulary)
    torch.manual_seed(0)
    model = llama(asked.vocabulary, asked.layers, asked.width, asked.heads, asked.block).to(device)
    compute = torch.compile(model) if arguments.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    text = torch.randint(asked.vocabulary, (2_000_000,))
    precision = speed.precision()

    def step(rows: int) -> None:
        at = torch.randint(len(text) - asked.block - 1, (asked.rows_a_step,))
        for some in at.split(rows):
            both = torch.stack([text[one : one + asked.block + 1] for one in some]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = compute(both[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), both[:, 1:].flatten())
            (loss * len(some) / asked.rows_a_step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.synchronize()

    rows = min(asked.rows_a_step, 64 if on_gpu else max(1, CPU_TOKENS // asked.block))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) <= FEWEST or time.perf_counter() - began < 30 * arguments.minutes:
        try:
            step(rows)
            times.append(time.perf_counter())
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            times.clear()
            rows //= 2
            optimizer.zero_grad(set_to_none=True)
    warm = max(1, round(WARM * len(times)))
    weights = sum(weight.numel() for weight in model.parameters())
    return {
        "what": f"{weights / 1e6:.0f} M parameters, {precision}{', compiled' * arguments.compile}, "
        f"{asked.rows_a_step} x {asked.block} tokens a step, {torch.cuda.get_device_name() if on_gpu else 'CPU'}",
        "pace": (len(times) - warm) * asked.rows_a_step * asked.block / (times[-1] - times[warm - 1]),
        "steps": len(times),
        "rows": rows,
        "batch_tokens": asked.batch_tokens,
        "vocabulary": asked.vocabulary,
        "flops": 6 * weights + 12 * asked.layers * asked.width * asked.block,
        "peak": speed.peak_flops(),
    }


def llama(vocabulary: int, layers: int, width: int, heads: int, length: int) -> Any:
    """The network of `chatbot.gpt.networks.new_model` in PyTorch alone."""
    import torch
    from torch import nn
    from torch.nn import functional

    wide = 64 * round(width * 8 / 3 / 64)
    each = width // heads
    angles = torch.outer(torch.arange(length), 10_000.0 ** (-torch.arange(0, each, 2) / each))
    turns = torch.stack([angles.cos(), angles.sin()])

    def turned(x: Any, cos: Any, sin: Any) -> Any:
        one, other = x.chunk(2, -1)
        return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).to(x.dtype)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
            self.attend, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.gate, self.up = nn.Linear(width, wide, bias=False), nn.Linear(width, wide, bias=False)
            self.down = nn.Linear(wide, width, bias=False)

        def forward(self, x: Any, cos: Any, sin: Any) -> Any:
            parts = self.attend(self.before(x)).unflatten(-1, (3, heads, each)).permute(2, 0, 3, 1, 4)
            q, k, v = turned(parts[0], cos, sin), turned(parts[1], cos, sin), parts[2]
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(seen.transpose(1, 2).flatten(2))
            y = self.between(x)
            return x + self.down(functional.silu(self.gate(y)) * self.up(y))

    class Llama(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.blocks, self.last = nn.ModuleList(Block() for _ in range(layers)), nn.RMSNorm(width, 1e-6)
            self.head = nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.tokens.weight
            self.register_buffer("turns", turns, persistent=False)
            for weight in self.parameters():
                if weight.dim() == 2:
                    nn.init.normal_(weight, std=0.02)

        def forward(self, ids: Any) -> Any:
            x = self.tokens(ids)
            cos, sin = self.turns[:, : ids.shape[1]]
            for block in self.blocks:
                x = block(x, cos, sin)
            return self.head(self.last(x))

    return Llama()


def ours(arguments: argparse.Namespace, theirs: dict[str, Any]) -> float:
    """Tokens a second of `chatbot train gpt pretrain`, by what it notes of itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.jsonl", theirs["vocabulary"])
        words = [
            "--data",
            f"{folder}/text.jsonl",
            "--out",
            f"{folder}/run",
            "--size",
            arguments.size,
            "--evaluations",
            "1",
        ]
        words += [
            word
            for option in ("steps", "batch_tokens", "vocabulary")
            for word in (f"--{option.replace('_', '-')}", str(theirs[option]))
        ]
        subprocess.run(
            [sys.executable, "-m", "chatbot", "train", "gpt", "pretrain", *words, *["--compile"] * arguments.compile],
            env=os.environ | {"CHATBOT_HOME": f"{folder}/home"}, stdout=sys.stderr, check=True,
        )  # fmt: skip
        known = json.loads((folder / "run" / "model" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        if known != theirs["vocabulary"]:
            print(f"Ours has {known:,} tokens in its vocabulary, not {theirs['vocabulary']:,}.", file=sys.stderr)
        rows = [
            json.loads(line) for line in (folder / "run" / "stats.jsonl").read_text(encoding="utf-8").splitlines()
        ]
    rows = [row for row in rows if "tokens_per_s" in row]
    warm = next(row for row in rows if row["step"] >= max(1, round(WARM * theirs["steps"])))
    seconds = [row["tokens"] / row["tokens_per_s"] for row in (warm, rows[-1])]
    return float((rows[-1]["tokens"] - warm["tokens"]) / (seconds[1] - seconds[0]))


def write_text(file: Path, vocabulary: int) -> None:
    """Texts of as many different words as fill a vocabulary, the frequent ones far more often (Zipf)."""
    chance = random.Random(0)
    known = [
        "".join(chance.choices("etaoinshrdlucmfwypvbgkjqxz", k=chance.randint(3, 10))) for _ in range(vocabulary)
    ]
    often = list(accumulate(1 / (place + 1) for place in range(len(known))))
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(max(500, vocabulary // 25)):
            text = " ".join(chance.choices(known, cum_weights=often, k=chance.randint(200, 1500)))
            lines.write(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    main()
