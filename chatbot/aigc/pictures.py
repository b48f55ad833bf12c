"""Batches of pictures as the networks see them, and back; their augmentations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def as_batch(pictures: NDArray[np.uint8], numbers: Sequence[int], device: torch.device) -> Tensor:
    """Pictures (n, C, R, R) in [-1, 1], from premultiplied uint8 (N, R, R, C)."""
    order = np.argsort(numbers)  # a mapped file is read from front to back
    chosen = np.empty((len(numbers), *pictures.shape[1:]), np.uint8)
    chosen[order] = pictures[np.asarray(numbers)[order]]
    batch = torch.from_numpy(chosen).to(device).permute(0, 3, 1, 2).float()
    return (batch / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_images(batch: Tensor) -> list[Image.Image]:
    """Pictures (N, C, R, R) in [-1, 1] as RGBA with straight alpha, or RGB."""
    values = ((batch.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    if values.shape[3] == 3:
        return [Image.fromarray(each, "RGB") for each in values]
    wide = values.astype(np.uint16)
    alpha = wide[..., 3:]
    colour = (np.minimum(wide[..., :3], alpha) * 255 + alpha // 2) // np.maximum(alpha, 1)
    straight = np.concatenate([colour, alpha], axis=3).astype(np.uint8)
    return [Image.fromarray(np.ascontiguousarray(each)) for each in straight]


def on_background(batch: Tensor, colour: float | Tensor = 1.0) -> Tensor:
    """RGB (N, 3, R, R) in [-1, 1] of premultiplied RGBA over a background of `colour` in [-1, 1]."""
    if batch.shape[1] == 3:
        return batch
    alpha = (batch[:, 3:] + 1) / 2
    return batch[:, :3] + (1 - alpha) * (colour + 1)


def vary(batch: Tensor, generator: torch.Generator, *, flips: bool = False) -> Tensor:
    """Turned by up to 10 degrees, scaled and moved by up to a tenth, brighter or darker, for A_G to read."""
    n = len(batch)

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(n, generator=generator) * (high - low) + low).to(batch.device)

    angle, scale = uniform(-0.17, 0.17), uniform(0.9, 1.12)
    theta = torch.zeros(n, 2, 3, device=batch.device)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos() * scale
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin() * scale, angle.sin() * scale
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    if flips:
        theta[:, 0] *= torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)[:, None]
    moved = F.grid_sample(
        batch + 1,
        _places(theta, batch),
        align_corners=False,
        padding_mode="zeros" if batch.shape[1] == 4 else "border",
    )
    brightness = uniform(0.85, 1.1)[:, None, None, None]
    colour = moved[:, :3] * brightness
    if batch.shape[1] == 4:
        colour = torch.minimum(colour, moved[:, 3:])
        return torch.cat([colour, moved[:, 3:]], dim=1) - 1
    return colour.clamp(max=2) - 1


def jolt(reals: Tensor, fakes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """DiffAugment (Zhao et al. 2020) for what D sees: the same shift by up to an eighth for both of a pair, and for
    pictures a change of brightness and contrast; no cutout, which leaks into what G makes."""
    n, depth, size, _ = reals.shape
    reach = max(1, size // 8)
    shifts = torch.randint(-reach, reach + 1, (n, 2), generator=generator).float() * 2 / size
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, :, 2] = shifts
    places = _places(theta, reals).to(reals.device)
    if depth > 4:
        return tuple(F.grid_sample(x, places, mode="nearest", align_corners=False) for x in (reals, fakes))  # type: ignore[return-value]  # as long as what went in
    light = (torch.rand(n, 1, 1, 1, generator=generator) * 0.4 - 0.2).to(reals.device)
    force = (torch.rand(n, 1, 1, 1, generator=generator) * 0.5 + 0.75).to(reals.device)

    def change(x: Tensor) -> Tensor:
        x = F.grid_sample(x + 1, places, mode="nearest", align_corners=False) - 1
        middle = x.mean((1, 2, 3), keepdim=True)
        return (x - middle) * force + middle + light

    return change(reals), change(fakes)


def _places(theta: Tensor, batch: Tensor) -> Tensor:
    """Where in each picture its pixels come from (N, R, R, 2); exact under autocast too: in bf16 they would be off by
    up to a quarter of a pixel of 256."""
    with torch.autocast(theta.device.type, enabled=False):
        return F.affine_grid(theta, list(batch.shape), align_corners=False)


def grid(images: Sequence[Image.Image], columns: int, *, scale: int = 1) -> Image.Image:
    """One picture of many on the grey of a chat, row by row."""
    width, height = images[0].width * scale, images[0].height * scale
    gap = 4
    rows = (len(images) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (236, 236, 236))
    for number, image in enumerate(images):
        shown = image.resize((width, height), Image.Resampling.LANCZOS) if scale > 1 else image
        place = (gap + number % columns * (width + gap), gap + number // columns * (height + gap))
        sheet.paste(shown, place, shown if shown.mode == "RGBA" else None)
    return sheet
