"""Pretraining on a CPU beside nanoGPT's small setting as a plain loop.

`python -m tests.benchmarks.pretraining [FILE.txt]`: both on the same text, a process each, taking turns; without a
file, on what Python's own `help` says of its topics (half a megabyte of English).

nanoGPT's setting for a CPU: characters, 4 layers, 4 heads, 128 wide, block 64, batch 12, 2,000 steps, AdamW at 1e-3
with a cosine to 1e-4. Its time is that of the loop alone, the better one of threads that wait as OpenMP lets them by
itself, and of threads that leave the cores to other programs; ours is that of the whole command. What is compared is
bits a byte, since ours has a tokenizer of its own: both predict the same last twentieth of the text, each token from
what stands before it within its block.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.table import Row

STEPS, BATCH, BLOCK, LAYERS, HEADS, WIDTH = 2000, 12, 64, 4, 4, 128
OUR_STEPS = 340
SHARE = 0.05
ROUNDS = 1
WAITING: dict[str, dict[str, str]] = {"ours": {}, "plain": {}, "plain, passive": {"OMP_WAIT_POLICY": "PASSIVE"}}
"""The environment of each side; ours chooses for itself."""


def plain(text: str) -> dict[str, float]:
    """nanoGPT's small setting: seconds of training, and bits per byte of the text held out."""
    import torch
    from torch import nn
    from torch.nn import functional

    cut = int(len(text) * (1 - SHARE))
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    learned, held = ids[:cut], ids[cut:]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
            self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            parts = self.attend(self.one(x)).split(WIDTH, dim=2)
            q, k, v = (part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(seen.transpose(1, 2).reshape(batch, length, WIDTH))
            return x + self.down(functional.gelu(self.up(self.two(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(len(letters), WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.blocks, self.last = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
            self.head = nn.Linear(WIDTH, len(letters), bias=False)
            self.head.weight = self.tokens.weight
            for name, weight in self.named_parameters():
                if weight.dim() == 2:
                    small = "project" in name or "down" in name
                    nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if small else 0.02)

        def forward(self, x: Any) -> Any:
            return self.head(self.last(self.blocks(self.tokens(x) + self.places.weight[: x.shape[1]])))

    torch.manual_seed(1337)
    model = Model()
    decay = [weight for weight in model.parameters() if weight.dim() > 1]
    rest = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    began = time.perf_counter()
    for step in range(STEPS):
        rate = 1e-3 * (step + 1) / 100 if step < 100 else 1e-4 + 4.5e-4 * (1 + math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(learned) - BLOCK - 1, (BATCH,))
        x, y = (torch.stack([learned[one + shift : one + shift + BLOCK] for one in at]) for shift in (0, 1))
        loss = functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - began
    nats, predicted = 0.0, 0
    with torch.no_grad():
        for at in range(0, len(held) - 1, BLOCK):
            x, y = held[at : at + BLOCK], held[at + 1 : at + BLOCK + 1]
            nats += float(functional.cross_entropy(model(x[None, : len(y)])[0], y, reduction="sum"))
            predicted += len(y)
    size = len("".join(list(text[cut:])[1 : predicted + 1]).encode())
    return {"seconds": seconds, "bits": nats / math.log(2) / size, "loss": nats / predicted}


def ours(text: str) -> dict[str, float]:
    """`chatbot train gpt pretrain --size nano`, the command itself: all its seconds, and the same bits per byte."""
    import torch
    from transformers import LlamaForCausalLM

    from chatbot.gpt.bits import score
    from chatbot.gpt.samples import Text
    from chatbot.gpt.tokenizer import load

    cut = int(len(text) * (1 - SHARE))
    with tempfile.TemporaryDirectory() as name:
        Path(name, "learned.txt").write_text(text[:cut], encoding="utf-8")
        words = [
            "--data",
            f"{name}/learned.txt",
            "--out",
            f"{name}/run",
            "--steps",
            str(OUR_STEPS),
            "--evaluations",
            "1",
        ]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "chatbot", "train", "gpt", "pretrain", *words],
            env=os.environ | {"CHATBOT_HOME": f"{name}/home"}, check=True, capture_output=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        model = LlamaForCausalLM.from_pretrained(f"{name}/run/model", dtype=torch.float32)
        scores = score(
            model, load(Path(name, "run", "model")), [Text(text[cut:], "held")],
            longest=256, system="", precision="fp32", tell=lambda *said: None,
        )  # fmt: skip
    return {"seconds": seconds, "bits": scores.bits_per_byte().value}


def help_topics() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def measure(file: str = "") -> list[Row]:
    """All in turn, `ROUNDS` times, on the same text."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in WAITING}
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for _ in range(ROUNDS):
        for side, results in found.items():
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.pretraining", file, side],
                env=rest | WAITING[side], capture_output=True, text=True, check=True,
            )  # fmt: skip
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(side, results[-1], file=sys.stderr, flush=True)
    mine, *peers = (
        [median(result[key] for result in results) for key in ("seconds", "bits")] for results in found.values()
    )
    seconds, bits = zip(mine, min(peers), strict=True)
    peer = "nanoGPT's small setting"
    return [
        Row("pretraining, held-out text", "bits/byte", *bits, peer, "ratio ≤ 1"),
        Row("pretraining, time", "s", *seconds, peer, "ratio ≤ 1"),
    ]


def main() -> None:
    from tests.benchmarks.table import render

    file, side, *_ = [*sys.argv[1:], "", ""]
    if side:
        text = Path(file).read_text(encoding="utf-8") if file else help_topics()
        print(json.dumps(ours(text) if side == "ours" else plain(text)))
    else:
        print(render(measure(file)))


if __name__ == "__main__":
    main()
