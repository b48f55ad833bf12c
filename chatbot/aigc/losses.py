"""The terms of the objective

    min over G, A_G   max over D, A_D   V(D, G) + l1 L_AD(D, A_D) + l2 L_AG(G, A_G)

V is one of `VALUES`. L_AD = -(reconstruction error of real pictures from D's features): maximising it minimises
`-V + l1 error`, which gives G no gradient, since no fake is in it.

    L_AG = 12 |G(z, t) - x| + 0.1 KL(q(z | x) || N(0, I)) + 0.4 (contrast(x, t) + contrast(G(z', t), t))

where the weights are those of `gan`. z is drawn from A_G's code q of x, whose first nats are free; the contrast of
real pictures trains A_G, that of pictures made at z' from N(0, I) G, until they are found as well as real ones.
All functions are free of state; logits are (N,), or (N, depths) of a teacher's features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Value:
    """How V is realised: both sides' losses from the logits of reals and of fakes, paired by caption.

    Attributes:
        penalised: whether R1 and R2 belong to it.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    penalised: bool


def relativistic_logit(real: Tensor, fake: Tensor) -> Tensor:
    """How much more real the real one of each pair looks (RpGAN, Jolicoeur-Martineau 2019, eq. 3)."""
    return real - fake


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-relativistic_logit(real, fake)).mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(relativistic_logit(real, fake)).mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _hinge_generator(real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


def _plain_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _plain_generator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


VALUES = {
    "r3gan": Value(_relativistic_discriminator, _relativistic_generator, penalised=True),
    "projected": Value(_hinge_discriminator, _hinge_generator, penalised=False),
    "bce": Value(_plain_discriminator, _plain_generator, penalised=False),
}
"""What D and G minimise, with s(u) = softplus(u) = -log sigmoid(-u), and y = G(z, t):

    r3gan      D: E s(D(y) - D(x)) + gamma (R1 + R2)               G: E s(D(x) - D(y))
    projected  D: E max(0, 1 - D(x)) + E max(0, 1 + D(y))          G: -E D(y)
    bce        D: E s(-D(x)) + E s(D(y))                           G: E s(-D(y))

R3GAN (Huang et al. 2024); the hinge (Lim and Ye 2017) as Projected GAN has it on a teacher's features (Sauer et al.
2021); and the non-saturating loss of Goodfellow et al. 2014."""


def gradient_penalty(logits: Tensor, pictures: Tensor) -> Tensor:
    """E |d logit / d picture|^2 / 2: R1 on reals, R2 on fakes (Mescheder et al. 2018, eq. 9). `pictures` is the leaf
    that the logits were computed from."""
    (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean() / 2


def reconstruction_error(rebuilt: Tensor, real: Tensor) -> Tensor:
    """-L_AD: how far what A_D reads out of D's features is from what D saw, both (N, depth, size, size), in L1."""
    return (rebuilt - real).abs().mean()


def picture_error(made: Tensor, real: Tensor) -> Tensor:
    """Mean L1 of pictures (N, channels, R, R), and of their edges (differences of neighbours), which keeps outlines
    sharp."""
    error = (made - real).abs().mean()
    for axis in (-1, -2):
        error = error + (made.diff(dim=axis) - real.diff(dim=axis)).abs().mean()
    return error


def divergence(mean: Tensor, log_variance: Tensor, free: float) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) in nats a picture, the mean of the batch; `free` nats cost nothing, so that
    the code does not die (Kingma et al. 2016, app. C.8)."""
    nats = nats_of_code(mean, log_variance)
    return torch.where(nats > free, nats, nats.detach())


def nats_of_code(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q || N(0, I)) in nats a picture."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


def contrast(pictures: Tensor, captions: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit vectors (N, d), 0 where there are no two; pairs with the same caption, `same` (N, N),
    are no negatives."""
    if len(pictures) < 2:
        return (pictures.sum() + captions.sum() + scale) * 0  # every network gets a gradient, in every process
    with torch.autocast(pictures.device.type, enabled=False):  # times 100, bf16 would be off by tenths
        logits = scale.exp().clamp(max=100) * pictures @ captions.T
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
