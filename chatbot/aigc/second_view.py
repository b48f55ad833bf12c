"""D's second view: pictures through a teacher, judged by small heads on its features.

Projected GAN (Sauer et al. 2021) without its random mixing of channels and scales: the features are frozen, and all
that learns is a conditional head at each depth. The value of this view is their hinge loss, which needs no gradient
penalty, whatever the first view is judged by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from chatbot.aigc.networks import Condition, Shape
from chatbot.aigc.pictures import jolt, on_background
from chatbot.aigc.teacher import Teacher

_WIDTH, _POOLED = 64, 128


class Head(nn.Module):
    """Logits (N,) of one depth's features, by projection of the condition as in the Discriminator. Spectral norms
    keep the hinge from growing steep (Miyato et al. 2018)."""

    def __init__(self, channels: int, side: int, condition: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(channels, _WIDTH, 1)), nn.SiLU()]
        while side > 4:
            layers += [spectral_norm(nn.Conv2d(_WIDTH, _WIDTH, 3, 2, 1)), nn.SiLU()]
            side = (side + 1) // 2
        self.body = nn.Sequential(*layers)
        self.pool = spectral_norm(nn.Linear(_WIDTH * side**2, _POOLED))
        self.free = spectral_norm(nn.Linear(_POOLED, 1))
        self.project = nn.Sequential(nn.Linear(condition, _POOLED), nn.SiLU(), nn.Linear(_POOLED, _POOLED))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        pooled = F.silu(self.pool(self.body(features).flatten(1)))
        along = (pooled * self.project(condition)).sum(1) / math.sqrt(pooled.shape[1])
        out: Tensor = self.free(pooled).squeeze(1) + along
        return out


class Heads(nn.Module):
    """One head for each depth of a teacher: logits (N, depths)."""

    def __init__(self, shape: Shape, depths: list[tuple[int, int]]) -> None:
        super().__init__()
        self.condition = Condition(shape)
        self.heads = nn.ModuleList(Head(channels, side, self.condition.length) for channels, side in depths)

    def forward(self, features: list[Tensor], text: Tensor, style: Tensor) -> Tensor:
        condition = self.condition(text, style)
        return torch.stack([head(x, condition) for head, x in zip(self.heads, features, strict=True)], dim=1)


@dataclass(frozen=True, slots=True)
class Features:
    """What a teacher sees of a batch: of reals, and of fakes with the graph that leads back to G."""

    reals: list[Tensor]
    fakes: list[Tensor]


class SecondView:
    """Turns what G makes into what the teacher sees of it.

    Args:
        decode: from G's space to pictures, a frozen decoder; None in the space of pixels.
    """

    def __init__(self, teacher: Teacher, decode: Callable[[Tensor], Tensor] | None) -> None:
        self.teacher, self._decode = teacher, decode

    def look(self, reals: Tensor, fakes: Tensor, generator: torch.Generator) -> Features:
        """Both of a pair on the same background, moved and lit alike. Reals go through the decoder too, lest its
        blur be what tells them from fakes."""
        colour = (torch.rand(len(reals), 3, 1, 1, generator=generator) * 2 - 1).to(reals.device)
        with torch.no_grad():
            real = on_background(self._pictures(reals), colour)
        real, fake = jolt(real, on_background(self._pictures(fakes), colour), generator)
        with torch.no_grad():
            on_real = self.teacher(real)
        return Features(on_real, self.teacher(fake))

    def _pictures(self, made: Tensor) -> Tensor:
        return made if self._decode is None else self._decode(made)
