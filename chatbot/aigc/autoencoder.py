"""The first stage: A_D's autoencoder learns the real pictures, so that G and D can work in its latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatbot.aigc import losses
from chatbot.aigc.dataset import Dataset
from chatbot.aigc.further import Begun
from chatbot.aigc.networks import LATENT_CHANNELS, Autoencoder, Shape
from chatbot.aigc.options import Options
from chatbot.aigc.pictures import as_batch, vary
from chatbot.device import computes_bf16
from chatbot.training import checkpoint, parallel
from chatbot.training.randomness import order_of, step_generator

NOISE = 0.1
"""Of the latents' deviation: G's latents will not be exact either."""

VIEWS = 4
"""How many varied views of each picture are encoded for A_G, beside the plain one."""


class AutoencoderStage:
    """Trains the autoencoder; one step draws all its chances from (seed, step, rank)."""

    name = "autoencoder"
    RATE = 1e-3  # with batches a quarter of the GAN's: it gains by many steps

    def __init__(
        self, options: Options, shape: Shape, dataset: Dataset, device: torch.device, begun: Begun | None = None
    ) -> None:
        self.options, self.dataset, self.device = options, dataset, device
        self.rank, self.ranks = parallel.start()
        self.bf16 = device.type == "cuda" and computes_bf16(device)
        self.rate, self.batch = self.RATE, max(parallel.start()[1], options.batch // 4)
        self.train = [n for n, item in enumerate(dataset.items) if item.split == "train"]
        self.net = Autoencoder(shape)
        self._begun = begun
        if begun is not None:
            begun.autoencoder(self.net)
        self.net = self.net.to(device).to(memory_format=torch.channels_last)
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=self.RATE, betas=(0.9, 0.99), weight_decay=1e-4)
        parallel.share(self.net.parameters())

    def step(self, number: int, progress: float) -> dict[str, Tensor]:
        """One step; `progress` in 0..1 of the stage. Gives the error. Raises FloatingPointError, and leaves the
        weights as they are, where a gradient is no number."""
        generator = step_generator(self.options.seed, number, self.rank)
        chosen = order_of(self.train, self.batch, number, self.options.seed)[self.rank :: self.ranks]
        pictures = as_batch(self.dataset.pictures, chosen, self.device)
        half = len(chosen) // 2
        pictures = torch.cat([pictures[:half], vary(pictures[half:], generator, flips=self.options.flips)])
        for group in self.optimizer.param_groups:
            group["lr"] = (
                self.rate * min(1.0, (number + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            latents = self.net.encoder(pictures)
            spread = latents.detach().float().std(dim=(0, 2, 3), keepdim=True)
            noise = torch.randn(latents.shape, generator=generator).to(self.device)
            rebuilt = self.net.decoder(latents + NOISE * spread * noise)
        error = losses.picture_error(rebuilt.float(), pictures)
        self.optimizer.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        parallel.average_gradients([one for one in self.net.parameters() if one.requires_grad])
        if not torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0).isfinite():
            raise FloatingPointError
        self.optimizer.step()
        return {"error": error.detach()}

    @torch.no_grad()
    def measure(self) -> None:
        """Set the mean and deviation of the latents over the training pictures, where G does not know others."""
        if self._begun is not None:
            return
        total, squares, count = torch.zeros(LATENT_CHANNELS), torch.zeros(LATENT_CHANNELS), 0
        for start in range(0, len(self.train), 256):
            latents = self.net.encoder(as_batch(self.dataset.pictures, self.train[start : start + 256], self.device))
            latents = latents.float().cpu()
            total += latents.sum((0, 2, 3))
            squares += latents.square().sum((0, 2, 3))
            count += latents[:, 0].numel()
        mean = total / count
        self.net.mean.copy_(mean.view(1, -1, 1, 1))
        self.net.deviation.copy_((squares / count - mean.square()).clamp(min=1e-8).sqrt().view(1, -1, 1, 1))

    def tensors(self) -> dict[str, Tensor]:
        held = {f"autoencoder/{name}": value for name, value in self.net.state_dict().items()}
        return held | checkpoint.optimizer_tensors(self.optimizer, "optimizer/autoencoder")

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.net.load_state_dict(
            {name.removeprefix("autoencoder/"): t for name, t in tensors.items() if name.startswith("autoencoder/")}
        )
        checkpoint.restore_optimizer(self.optimizer, "optimizer/autoencoder", tensors)


@torch.no_grad()
def encode_all(
    net: Autoencoder,
    dataset: Dataset,
    options: Options,
    device: torch.device,
    tell: Callable[[str, float | None], None],
) -> NDArray[np.float16]:
    """Latents of every picture: (1 + VIEWS, N, 16, R/8, R/8), the plain one first, then varied views."""
    count, side = len(dataset.items), options.resolution // 8
    latents = np.empty((1 + VIEWS, count, LATENT_CHANNELS, side, side), np.float16)
    generator = torch.Generator().manual_seed(options.seed)
    for start in range(0, count, 256):
        tell("Encoding the pictures", start / count)
        numbers = list(range(start, min(count, start + 256)))
        plain = as_batch(dataset.pictures, numbers, device)
        for view in range(1 + VIEWS):
            pictures = vary(plain, generator, flips=options.flips) if view else plain
            latents[view, start : start + len(numbers)] = net.encode(pictures).float().cpu().numpy()
    return latents


def save_latents(latents: NDArray[np.float16], path: Path) -> None:
    part = path.with_suffix(".partial.npy")
    np.save(part, latents)
    part.replace(path)
