"""The arithmetic of the objective."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from chatbot.aigc import losses
from chatbot.aigc.networks import Discriminator, FeatureDecoder, Generator, PictureEncoder, Shape

SHAPE = Shape(resolution=32, text=8, styles=2, code=4, width=32, mapping=16, concepts=3, memory=5, autoencoder=40)


def test_a_penalty_is_the_analytic_squared_gradient() -> None:
    pictures = torch.randn(5, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4)
    logits = (pictures.square() * weight).sum((1, 2, 3))
    expected = (2 * pictures.detach() * weight).square().sum((1, 2, 3)).mean() / 2
    assert losses.gradient_penalty(logits, pictures).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_penalty_can_itself_be_descended() -> None:
    d = Discriminator(SHAPE)
    pictures = torch.randn(2, 16, 4, 4, requires_grad=True)
    text, style = torch.randn(2, 8), torch.tensor([0, 1])
    losses.gradient_penalty(d(pictures, text, style), pictures).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in d.parameters())


def test_swapping_real_and_fake_negates_the_relativistic_logit() -> None:
    real, fake = torch.randn(7), torch.randn(7)
    assert torch.equal(losses.relativistic_logit(real, fake), -losses.relativistic_logit(fake, real))
    value = losses.VALUES["r3gan"]
    assert torch.allclose(value.discriminator(real, fake), value.generator(fake, real))


def test_the_assistant_of_d_gives_g_no_gradient() -> None:
    g, d = Generator(SHAPE), Discriminator(SHAPE)
    a_d = FeatureDecoder(SHAPE, d.trunk)
    text, style = torch.randn(3, 8), torch.tensor([0, 1, 2])
    fakes = g(torch.randn(3, 4), text, style)
    reals = torch.randn(3, 16, 4, 4)
    both = d.features(torch.cat([reals, fakes]))
    losses.reconstruction_error(a_d(both[:3]), reals).backward()
    assert all(p.grad is None or not p.grad.any() for p in g.parameters())
    assert any(p.grad is not None and p.grad.any() for p in d.parameters())


def test_divergence_is_that_of_torch_and_free_below_its_allowance() -> None:
    mean, log_variance = torch.randn(4, 6), torch.randn(4, 6).requires_grad_()
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert losses.nats_of_code(mean, log_variance).item() == pytest.approx(expected.item(), rel=1e-5)
    free = losses.divergence(mean, log_variance, free=1e6)
    assert not free.requires_grad or not torch.autograd.grad(free, log_variance, allow_unused=True)[0].any()


def test_pictures_with_the_same_caption_are_no_negatives_of_each_other() -> None:
    pictures = nn.functional.normalize(torch.randn(4, 8), dim=1)
    scale = torch.tensor(math.log(10.0))
    alone = losses.contrast(pictures, pictures, torch.eye(4, dtype=torch.bool), scale)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    assert losses.contrast(pictures, pictures, same, scale) < alone
    everything = losses.contrast(pictures, pictures, torch.ones(4, 4, dtype=torch.bool), scale)
    assert everything.item() == pytest.approx(0.0, abs=1e-6)


def test_of_one_caption_there_is_no_contrast_and_yet_a_gradient() -> None:
    pictures, captions = (torch.randn(1, 8, requires_grad=True) for _ in range(2))
    scale = torch.zeros((), requires_grad=True)
    loss = losses.contrast(pictures, captions, torch.ones(1, 1, dtype=torch.bool), scale)
    loss.backward()
    assert loss.item() == 0
    assert all(one.grad is not None and not one.grad.any() for one in (pictures, captions, scale))


def test_a_frozen_pass_gives_its_input_a_gradient_and_its_weights_none() -> None:
    from chatbot.aigc.gan import _frozen

    a_g = PictureEncoder(SHAPE)
    made = torch.randn(2, 16, 4, 4, requires_grad=True)
    _frozen(a_g, made)[2].sum().backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in a_g.parameters())


def test_memory_begins_with_the_drawings_it_was_shown() -> None:
    g = Generator(SHAPE)
    drawings = torch.randn(6, 16, 4, 4)
    concepts, styles = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    keys = torch.eye(3, 8)
    g.remember(keys, drawings, concepts, styles)
    made = g(torch.zeros(6, 4), keys[concepts], styles)
    assert (made - drawings).abs().mean() < 1e-3  # five components span six drawings less their mean


def test_every_mode_of_a_ring_of_eight_is_covered() -> None:
    torch.manual_seed(0)

    def mlp(inside: int, outside: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inside, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, outside))

    def real(count: int) -> Tensor:
        angle = torch.randint(8, (count,)) * math.pi / 4
        return torch.stack([angle.cos(), angle.sin()], 1) + 0.03 * torch.randn(count, 2)

    g, d, value = mlp(4, 2), mlp(2, 1), losses.VALUES["r3gan"]
    optimizers = [torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.0, 0.99)) for net in (g, d)]
    for _ in range(1500):
        x, y = real(128).requires_grad_(), g(torch.randn(128, 4)).detach().requires_grad_()
        on_real, on_fake = d(x)[:, 0], d(y)[:, 0]
        penalty = losses.gradient_penalty(on_real, x) + losses.gradient_penalty(on_fake, y)
        loss = value.discriminator(on_real, on_fake) + 0.05 * penalty
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        loss = value.generator(d(real(128))[:, 0].detach(), d(g(torch.randn(128, 4)))[:, 0])
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
    made = g(torch.randn(2000, 4)).detach()
    angle = torch.arange(8) * math.pi / 4
    near = torch.cdist(made, torch.stack([angle.cos(), angle.sin()], 1)) < 0.3
    assert (near.sum(0) > 40).all()
