"""The judge: does a picture show what its caption says? Trained on real pictures only, apart from every run.

`python -m chatbot.aigc.judge DATA OUT` trains it from a folder of pictures with captions. It is a small
convolutional network that lays a picture beside the vectors of captions (CLIP's symmetric contrast, Radford et al.
2021), from pixels; where there are none, beside another view of the same picture (SimCLR, Chen et al. 2020). Nothing
of G, D or their assistants is in it, and it never sees a picture that was made.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.aigc import captions, dataset, losses
from chatbot.aigc.pictures import as_batch, on_background, vary
from chatbot.aigc.text import LENGTH
from chatbot.errors import ModelError, exit_code
from chatbot.training.randomness import order_of, step_generator

SIZE = 64
FEATURES = 256
_WIDTHS = (32, 64, 128, 256)


class Judge(nn.Module):
    """Pictures (N, 3, 64, 64) in [-1, 1] to features (N, 256) and unit vectors beside those of captions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 3
        for width in _WIDTHS:
            layers += [nn.Conv2d(inside, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
            inside = width
        self.body = nn.Sequential(*layers)
        self.feature = nn.Linear(inside * (SIZE // 16) ** 2, FEATURES)
        self.picture = nn.Linear(FEATURES, 192)
        self.caption = nn.Sequential(nn.Linear(LENGTH, 384), nn.SiLU(), nn.Linear(384, 192))
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))

    def features(self, pictures: Tensor) -> Tensor:
        return F.silu(self.feature(F.dropout(self.body(pictures).flatten(1), 0.2, self.training)))

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.picture(self.features(pictures)), dim=1)

    def embed_caption(self, text: Tensor) -> Tensor:
        return F.normalize(self.caption(text * math.sqrt(LENGTH)), dim=1)


def as_seen(images: Sequence[Image.Image]) -> Tensor:
    """Pictures as the judge looks at them, on white: (N, 3, 64, 64)."""
    import numpy as np

    seen = []
    for image in images:
        wide = image.convert("RGBA").convert("RGBa")
        if wide.size != (SIZE, SIZE):
            wide = wide.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        seen.append(torch.from_numpy(np.asarray(wide).copy()))
    batch = torch.stack(seen).permute(0, 3, 1, 2).float() / 127.5 - 1
    return on_background(batch)


def train(
    data: dataset.Dataset,
    read: captions.Captions,
    steps: int,
    tell: Callable[[str, float | None], None],
    *,
    batch: int = 128,
    seed: int = 1_234,
) -> Judge:
    """A judge of the training split's pictures, which must be 64x64, by their captions where any were read."""
    torch.manual_seed(seed)
    judge = Judge().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    numbers = data.split("train")
    captioned = read.vectors.shape[1] > 0

    def view(chosen: Sequence[int], generator: torch.Generator) -> Tensor:
        pictures = vary(as_batch(data.pictures, chosen, torch.device("cpu")), generator)
        colour = torch.rand(len(chosen), 3, 1, 1, generator=generator) * 2 - 1
        pictures = on_background(pictures, colour)
        return pictures + torch.rand(len(chosen), 1, 1, 1, generator=generator) * 0.2 * torch.randn(
            pictures.shape, generator=generator
        )

    for step in range(steps):
        generator = step_generator(seed, step)
        chosen = order_of(numbers, batch, step, seed)
        pictures = view(chosen, generator)
        if captioned:
            beside, shows = judge.embed_caption(read.draw(chosen, generator)), read.concepts[chosen]
        else:
            beside, shows = judge(view(chosen, generator)), torch.tensor(chosen)
        loss = losses.contrast(judge(pictures), beside, shows[:, None] == shows[None], judge.temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            tell(f"judge: {step * batch / 1000:.0f} kimg, loss {float(loss.detach()):.2f}", step / steps)
    return judge.eval().requires_grad_(False)


def save(judge: Judge, path: Path) -> None:
    """Half precision; written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".partial")
    held = {name: t.half() if t.is_floating_point() else t for name, t in judge.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in held.items()}, part)
    part.replace(path)


def load(path: Path) -> Judge:
    """Raises ModelError where it is missing or damaged."""
    judge = Judge()
    try:
        judge.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The judge in {path} cannot be loaded ({error}).") from None
    return judge.eval().requires_grad_(False)


def main() -> int:
    from chatbot.aigc.encoder import text_encoder

    parser = argparse.ArgumentParser(prog="python -m chatbot.aigc.judge", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of pictures with captions")
    parser.add_argument("out", type=Path, metavar="OUT", help="safetensors file to write")
    parser.add_argument("--kimg", type=float, default=60, help="thousands of pictures to show it (default 60)")
    arguments = parser.parse_args()

    def tell(text: str, fraction: float | None) -> None:
        print(text, file=sys.stderr)

    def work() -> None:
        with tempfile.TemporaryDirectory() as name:
            data = dataset.prepare(arguments.data, Path(name), SIZE, lambda *_: None, print)
            read = captions.read(data.items, "text", text_encoder, lambda *_: None)
            judge = train(data, read, int(arguments.kimg * 1000 / 128), tell)
        save(judge, arguments.out)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
