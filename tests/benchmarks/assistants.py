"""What each assistant is worth, on stacked digits: `python -m tests.benchmarks.assistants [MINUTES]`.

Plain, with A_D, with A_G, and both. Three of scikit-learn's 8x8 digits, one in each colour, are a thousand kinds of
pictures. (Not Stacked MNIST, whose digits are others.) How many kinds a generator makes, told by a network that was
trained on real digits, is how much of the data it covers; time is counted until the KID-like distance in that
network's features is low enough.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.aigc import captions, distances
from chatbot.aigc.dataset import Dataset, Item
from chatbot.aigc.gan import GanStage
from chatbot.aigc.options import from_preset, network_shape

PICTURES = 10_000
LOOKED_AT = 5_000
EVERY_S = 10.0
LEVELS = (0.4, 0.3, 0.2, 0.1, 0.05)
"""KID-like distances, and to each of them the time is told."""

ARMS = (("plain", 0.0, 0.0), ("+ A_D", 1.0, 0.0), ("+ A_G", 0.0, 1.0), ("both", 1.0, 1.0))


class _Reader(nn.Module):
    """Reads a digit (N, 1, 8, 8): features (N, 64), then ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.SiLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def table(minutes: float) -> str:
    """Train each arm for so many minutes; a Markdown table."""
    digits, labels = load_digits(return_X_y=True)
    scaled = torch.from_numpy(digits).float().view(-1, 1, 8, 8) / 8 - 1
    reader, accuracy = _reader(scaled, torch.from_numpy(labels))
    data = _stacked(scaled)
    looked_at = _features(
        reader, torch.from_numpy(data.pictures[:LOOKED_AT]).permute(0, 3, 1, 2).float() / 127.5 - 1
    )[0]
    scale = looked_at.std() * np.sqrt(2)  # for KID's kernel, which is no good for large numbers
    columns = " | ".join(f"seconds to {level:g}" for level in LEVELS)
    lines = [
        f"Stacked digits, {minutes:g} minutes an arm, {LOOKED_AT:,} pictures looked at; the reader tells "
        f"{accuracy:.1%} of held-out digits right\n",
        f"| arm | kinds of 1,000 | KID-like at the end | {columns} | pictures shown |",
        f"|---|---|---|{'---|' * len(LEVELS)}---|",
    ]
    for name, lambda_d, lambda_g in ARMS:
        kinds, kid, reached, shown = _arm(data, reader, looked_at / scale, scale, lambda_d, lambda_g, minutes * 60)
        told = " | ".join(f"{reached[level]:.0f}" if level in reached else "not reached" for level in LEVELS)
        lines.append(f"| {name} | {kinds} | {kid:.4f} | {told} | {shown:,} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def _reader(digits: Tensor, labels: Tensor) -> tuple[_Reader, float]:
    torch.manual_seed(0)
    reader = _Reader()
    optimizer = torch.optim.Adam(reader.parameters(), 2e-3)
    order = torch.randperm(len(digits))
    train, held = order[:1_500], order[1_500:]
    for _ in range(600):
        chosen = train[torch.randint(len(train), (128,))]
        loss = F.cross_entropy(reader(digits[chosen] + 0.1 * torch.randn(128, 1, 8, 8))[1], labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    reader.eval().requires_grad_(False)
    return reader, float((reader(digits[held])[1].argmax(1) == labels[held]).float().mean())


def _stacked(digits: Tensor) -> Dataset:
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(digits), (PICTURES, 3))
    stacked = digits[torch.from_numpy(chosen)][:, :, 0]
    pictures = ((stacked + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    items = tuple(Item(str(number), (), "", "digits") for number in range(PICTURES))
    return Dataset(np.ascontiguousarray(pictures), items, "digits")


def _features(reader: _Reader, pictures: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features of the three colours beside each other, and which of the thousand kinds each picture is."""
    found = [reader(pictures[:, colour : colour + 1]) for colour in range(3)]
    features = torch.cat([each[0] for each in found], dim=1).double().numpy()
    kinds = sum(each[1].argmax(1) * 10**place for place, each in enumerate(found))
    assert isinstance(kinds, Tensor)
    return features, kinds.numpy()


def _arm(
    data: Dataset,
    reader: _Reader,
    reals: NDArray[np.float64],
    scale: float,
    lambda_d: float,
    lambda_g: float,
    seconds: float,
) -> tuple[int, float, dict[float, float], int]:
    options = from_preset("cpu-32", data="digits", space="pixels", conditioning="none", kimg=1, seed=1)
    options = replace(options, lambda_d=lambda_d, lambda_g=lambda_g, shape={**options.shape, "width": 64})
    shape = replace(network_shape(options, 3, 1, 0, 0), resolution=8)
    torch.manual_seed(1)
    read = captions.read(data.items, "none", lambda: None, lambda *_: None)  # type: ignore[arg-type, return-value]  # no caption is read
    stage = GanStage(options, shape, data, read, None, torch.device("cpu"))
    spent, step, looked, kid, kinds = 0.0, 0, 0.0, float("nan"), 0
    reached: dict[float, float] = {}
    while spent < seconds:
        began = time.monotonic()
        stage.step(step, spent / seconds)
        spent += time.monotonic() - began
        step += 1
        if spent - looked > EVERY_S or spent >= seconds:
            looked = spent
            kid, kinds = _look(stage, reader, reals, scale)
            reached |= {level: spent for level in LEVELS if kid <= level and level not in reached}
    return kinds, kid, reached, step * options.batch


@torch.no_grad()
def _look(stage: GanStage, reader: _Reader, reals: NDArray[np.float64], scale: float) -> tuple[float, int]:
    codes = torch.randn(LOOKED_AT, stage.shape.code, generator=torch.Generator().manual_seed(7))
    numbers = stage.train[:LOOKED_AT]
    made = torch.cat(
        [stage.sample(numbers[at : at + 500], codes[at : at + 500]).float() for at in range(0, LOOKED_AT, 500)]
    )
    features, kinds = _features(reader, made.clamp(-1, 1))
    found = distances.kid(reals, features / scale)
    return found, len(set(kinds.tolist()))


if __name__ == "__main__":
    print(table(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0))
