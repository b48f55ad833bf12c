"""The second stage: G against D, each with its assistant."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from chatbot.aigc import losses
from chatbot.aigc.captions import Captions
from chatbot.aigc.dataset import Dataset
from chatbot.aigc.further import HELD, Begun
from chatbot.aigc.networks import (
    Autoencoder,
    Discriminator,
    FeatureDecoder,
    Generator,
    PictureEncoder,
    Shape,
)
from chatbot.aigc.options import Options
from chatbot.aigc.pictures import as_batch, jolt, vary
from chatbot.aigc.second_view import Features, Heads, SecondView
from chatbot.aigc.teacher import Teacher
from chatbot.device import computes_bf16
from chatbot.training import checkpoint, parallel
from chatbot.training.randomness import order_of, step_generator

RECONSTRUCTION, DIVERGENCE, CONTRAST = 12.0, 0.1, 0.4
"""Weights inside L_AG: L1 of the rebuilt, nats of the code, contrast."""

MISMATCH = 0.5
"""Weight of real pictures with captions of others, which D has to tell from those with their own."""

PENALTY_EVERY = 4
"""Steps between gradient penalties, the dearest part of a step (lazy regularisation, Karras et al. 2020)."""

NOISE = 0.1
"""On whatever A_G looks at, lest pictures be hidden in codes, or captions in pictures."""

TURNED = 0.3
"""Share of the pictures shown in a varied view: what codes are there to tell, where a caption tells the rest."""

CAPTIONS_DROPPED, STYLES_DROPPED = 0.05, 0.1
HALF_LIFE = 20_000  # pictures, of the moving average of G; shorter at the beginning

_REMEMBERED = 4096
_REMEMBERED_NUMBERS = 2**26
"""Drawings that G's memory begins with in the space of pixels, and the numbers in all of them, of which half a GB is
taken a few times over: at 64 pixels both are the same."""

HINGE = losses.VALUES["projected"]
"""The value of the second view."""


@dataclass(frozen=True, slots=True)
class _Conditions:
    """Captions and styles of a batch: `said`, where there is a caption (N,); `same`, which pairs show the same
    concept, or have the same name (N, N); and captions of `other` pictures, with where both are said and mean
    something else (N,)."""

    text: Tensor
    style: Tensor
    said: Tensor
    same: Tensor
    other: Tensor
    differs: Tensor


class GanStage:
    """min over G, A_G, max over D, A_D; one step draws all its chances from (seed, step, rank).

    With a teacher D has a second view, judged by hinge; with `--loss projected` it is the only one, and then A_D has
    nothing to hold on to: features that are frozen need no help to keep what is in a picture.

    Args:
        latents: (1 + views, N, depth, size, size) of the pictures, or None in the space of pixels.
        teacher: of the second view; autoencoder: whose decoder, frozen, shows it what is made of latents.
    """

    name = "gan"

    def __init__(
        self,
        options: Options,
        shape: Shape,
        dataset: Dataset,
        captions: Captions,
        latents: NDArray[np.float16] | None,
        device: torch.device,
        *,
        teacher: Teacher | None = None,
        autoencoder: Autoencoder | None = None,
        begun: Begun | None = None,
    ) -> None:
        self.options, self.shape, self.dataset, self.captions = options, shape, dataset, captions
        self.latents, self.device = latents, device
        self.rank, self.ranks = parallel.start()
        self.train = [n for n, item in enumerate(dataset.items) if item.split == "train"]
        styles = dataset.styles
        self.styles = torch.tensor([styles.index(item.style) for item in dataset.items])
        self.value = losses.VALUES[options.loss]
        self.teacher_weight = 1.0 if options.loss == "projected" else options.teacher_weight
        self.g = Generator(shape)
        self._remember(begun)
        self.d = Discriminator(shape) if options.loss != "projected" else None
        self.a_d = FeatureDecoder(shape, self.d.trunk) if self.d is not None else None
        self.a_g = PictureEncoder(shape)
        self.heads: Heads | None = None
        self.view: SecondView | None = None
        if teacher is not None:
            self.heads = Heads(shape, teacher.shapes)
            teacher.to(device).to(memory_format=torch.channels_last)
            self.view = SecondView(teacher, autoencoder.decode if autoencoder is not None else None)
        self.holds = begun is not None and not begun.has_assistants
        if begun is not None:
            begun.assistants(self.nets())
        for net in self.nets().values():
            net.to(device).to(memory_format=torch.channels_last)
            parallel.share(net.parameters())
        self.ema = copy.deepcopy(self.g).requires_grad_(False)
        self.rate, self.batch = options.rate, options.batch
        self.bf16 = device.type == "cuda" and computes_bf16(device)
        self.gap = 0.0  # between the logits of reals and fakes, a moving average
        self.g_side = [*self.g.parameters(), *self.a_g.parameters()]
        self.d_side = [p for name, net in self.nets().items() if name not in ("g", "a_g") for p in net.parameters()]
        self.optimizers = {
            "d": torch.optim.Adam(self.d_side, lr=self.rate, betas=(0.0, 0.99), fused=True),
            "g": torch.optim.Adam(self.g_side, lr=self.rate, betas=(0.5, 0.99), fused=True),
        }

    def _remember(self, begun: Begun | None) -> None:
        """Let G's memory begin with the latents of the drawings, or with what a model there is knows."""
        if not self.shape.concepts:
            if begun is not None:
                nothing = torch.zeros(0)
                begun.generator(self.g, (), nothing, nothing, nothing, nothing)
            return
        names, keys = self.captions.known(self.train)
        places = {self.captions.concept_names.index(name): place for place, name in enumerate(names)}
        numbers = [n for n in self.train if int(self.captions.concepts[n]) in places]
        if self.latents is None:
            numbers = numbers[: min(_REMEMBERED, _REMEMBERED_NUMBERS // (self.shape.depth * self.shape.size**2))]
            drawings = as_batch(self.dataset.pictures, numbers, torch.device("cpu"))
        else:
            drawings = torch.from_numpy(np.asarray(self.latents[0][numbers])).float()
        concepts = torch.tensor([places[int(self.captions.concepts[n])] for n in numbers])
        if begun is not None:
            begun.generator(self.g, names, keys, drawings, concepts, self.styles[numbers])
        else:
            self.g.remember(keys, drawings, concepts, self.styles[numbers])

    def nets(self) -> dict[str, nn.Module]:
        nets = {"g": self.g, "d": self.d, "a_d": self.a_d, "a_g": self.a_g, "heads": self.heads}
        return {name: net for name, net in nets.items() if net is not None}

    def step(self, number: int, progress: float) -> dict[str, Tensor]:
        """One step of D with A_D, then one of G with A_G; `progress` in 0..1 of the stage. Raises FloatingPointError,
        and leaves the weights of that side as they are, where a gradient is no number."""
        generator = step_generator(self.options.seed, number, self.rank)
        chosen = order_of(self.train, self.options.batch, number, self.options.seed)[self.rank :: self.ranks]
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = (
                    self.rate * min(1.0, (number + 1) / 200) * _decay(progress) * (1 if name == "g" else 0.7)
                )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self._step(chosen, generator, number, held=self.holds and progress < HELD)

    def _step(self, chosen: list[int], generator: torch.Generator, number: int, *, held: bool) -> dict[str, Tensor]:
        n, half = len(chosen), len(chosen) // 2
        assisted = self.options.lambda_g > 0
        reals, views = self._pictures(chosen, generator)
        conditions = self._conditions(chosen, generator)
        text, style = conditions.text, conditions.style
        codes = torch.randn(n, self.shape.code, generator=generator).to(self.device)
        stats: dict[str, Tensor] = {}

        # G's pictures: the first half from codes of real pictures, the second from N(0, I); D judges both alike
        if assisted:
            mean, log_variance, seen = self.a_g(views)
            mean, log_variance, seen = mean.float(), log_variance.float(), seen.float()
            noise = torch.randn(n, self.shape.code, generator=generator).to(self.device)
            read = mean + noise * (log_variance / 2).exp()
            fed = torch.cat([read, codes[half:]])
            made = self.g(fed, torch.cat([text, text[half:]]), torch.cat([style, style[half:]])).float()
            rebuilt, fakes = made[:n], torch.cat([made[:half], made[n:]])
        else:
            fakes = self.g(codes, text, style).float()

        # D and A_D
        features = self.view.look(reals, fakes, generator) if self.view is not None else None
        loss_d = reals.new_zeros(())
        if self.d is not None:
            loss_d = self._judge(self.d, reals, fakes, conditions, generator, number, stats)
        if self.heads is not None and features is not None:
            loss_d = loss_d + self.teacher_weight * self._judge_features(self.heads, features, conditions, stats)
        self._update("d", loss_d)

        # G and A_G
        loss_g = reals.new_zeros(())
        if self.d is not None:
            real_in, fake_in = jolt(reals, fakes, generator)
            with torch.no_grad():  # by the D of now, and jolted alike: a pair is told apart by nothing else
                real_logits = self.d(real_in, text, style).float()
            fake_logits = _frozen(self.d, fake_in, text, style).float()
            loss_g = self.value.generator(real_logits, fake_logits)
        if self.heads is not None and features is not None:
            fake_logits = _frozen(self.heads, features.fakes, text, style).float()
            loss_g = loss_g + self.teacher_weight * HINGE.generator(fake_logits, fake_logits)
        stats |= {"g": loss_g}
        if assisted:
            error = (rebuilt - reals).abs().mean()
            nats = losses.nats_of_code(mean, log_variance)
            assistance = RECONSTRUCTION * error
            assistance = assistance + DIVERGENCE * losses.divergence(mean, log_variance, self.options.free_nats)
            stats |= {"a_g": error, "nats": nats}
            if self.shape.text:
                noise = torch.randn(made[n:].shape, generator=generator).to(self.device)
                on_reals, on_fakes = self._contrasts(seen, made[n:] + NOISE * noise, conditions)
                assistance = assistance + CONTRAST * (on_reals + on_fakes)
                stats |= {"contrast": on_reals, "contrast_fakes": on_fakes}
            loss_g = loss_g + self.options.lambda_g * assistance
        self._update("g", loss_g, held=held)
        self.gap = 0.99 * self.gap + 0.01 * float(stats["gap"].detach())
        self._average((number + 1) * self.options.batch)
        return {name: value.detach() for name, value in stats.items()}

    def _judge(
        self,
        d: Discriminator,
        reals: Tensor,
        fakes: Tensor,
        conditions: _Conditions,
        generator: torch.Generator,
        number: int,
        stats: dict[str, Tensor],
    ) -> Tensor:
        """The loss of D and A_D."""
        real_in, fake_in = jolt(reals, fakes.detach(), generator)
        penalised = self.value.penalised and number % PENALTY_EVERY == 0
        real_in, fake_in = real_in.detach().requires_grad_(penalised), fake_in.detach().requires_grad_(penalised)
        features = d.features(real_in)
        real_logits = d.judge(features, conditions.text, conditions.style).float()
        fake_logits = d(fake_in, conditions.text, conditions.style).float()
        loss = self.value.discriminator(real_logits, fake_logits)
        stats |= {"d": loss, "gap": (real_logits - fake_logits).mean()}
        if self.shape.text:
            wrong = d.judge(features, conditions.other, conditions.style).float()
            loss = loss + MISMATCH * (F.softplus(wrong - real_logits) * conditions.differs).mean()
        if penalised:
            r1 = losses.gradient_penalty(real_logits, real_in)
            r2 = losses.gradient_penalty(fake_logits, fake_in)
            loss = loss + PENALTY_EVERY * self.options.gamma * (r1 + r2)
            stats |= {"r1": r1, "r2": r2}
        if self.options.lambda_d > 0 and self.a_d is not None:
            error = losses.reconstruction_error(self.a_d(features).float(), real_in.detach())
            loss = loss + self.options.lambda_d * error
            stats |= {"a_d": error}
        return loss

    def _contrasts(self, seen: Tensor, made: Tensor, conditions: _Conditions) -> tuple[Tensor, Tensor]:
        """Of captions with real pictures as A_G has `seen` them, which trains A_G, and with those that were `made` of
        the later half's captions at codes from N(0, I), which trains G alone: codes of A_G would lead back to it.
        A caption that was dropped is none."""
        said, late = conditions.said, conditions.said[-len(made) :]
        vectors = self.a_g.embed_caption(conditions.text).float()
        on_reals = losses.contrast(seen[said], vectors[said], conditions.same[said][:, said], self.a_g.temperature)
        looks = _frozen(self.a_g, made)[2].float()
        same = conditions.same[-len(made) :, -len(made) :][late][:, late]
        temperature = self.a_g.temperature.detach()
        captions = vectors[-len(made) :][late].detach()
        on_fakes = losses.contrast(looks[late], captions, same, temperature)
        as_reals = losses.contrast(seen[-len(made) :][late].detach(), captions, same, temperature)
        # Only until they are found as well as real ones are: beyond, it is A_G's blind spots that G would draw.
        return on_reals, F.relu(on_fakes - as_reals)

    def _judge_features(
        self, heads: Heads, features: Features, conditions: _Conditions, stats: dict[str, Tensor]
    ) -> Tensor:
        """The loss of D's second view."""
        real_logits = heads(features.reals, conditions.text, conditions.style).float()
        fakes = [each.detach() for each in features.fakes]
        fake_logits = heads(fakes, conditions.text, conditions.style).float()
        loss = HINGE.discriminator(real_logits, fake_logits)
        gap = (real_logits - fake_logits).mean()
        stats |= {"d": loss, "gap": gap} if self.d is None else {"d_teacher": loss, "gap_teacher": gap}
        if self.shape.text:
            wrong = heads(features.reals, conditions.other, conditions.style).float()
            loss = loss + MISMATCH * (F.softplus(wrong - real_logits) * conditions.differs[:, None]).mean()
        return loss

    def _pictures(self, chosen: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What D compares with and G should rebuild, some of it turned and moved, and the same with noise for A_G."""
        if self.latents is None:
            drawn = as_batch(self.dataset.pictures, chosen, self.device)
            turned = torch.rand(len(chosen), 1, 1, 1, generator=generator).to(self.device) < TURNED
            drawn = torch.where(turned, vary(drawn, generator, flips=self.options.flips), drawn)
            return drawn, drawn + NOISE * torch.randn(drawn.shape, generator=generator).to(self.device)
        view = torch.randint(1, len(self.latents), (len(chosen),), generator=generator)
        view[torch.rand(len(chosen), generator=generator) > TURNED] = 0
        drawn = torch.from_numpy(self.latents[view.numpy(), chosen]).to(self.device).float()
        drawn = drawn.contiguous(memory_format=torch.channels_last)
        return drawn, drawn + NOISE * torch.randn(drawn.shape, generator=generator).to(self.device)

    def _conditions(self, chosen: list[int], generator: torch.Generator) -> _Conditions:
        text = self.captions.draw(chosen, generator)
        style = self.styles[chosen].clone()
        chances = torch.rand(len(chosen), 2, generator=generator)
        text[chances[:, 0] < CAPTIONS_DROPPED] = 0
        style[chances[:, 1] < STYLES_DROPPED] = self.shape.styles
        concepts, names = self.captions.concepts[chosen], self.captions.names[chosen, 0]
        same = (concepts[:, None] == concepts[None]) | (names[:, None] == names[None])
        said = text.any(1)
        differs = said & said.roll(1) & ~same.roll(1, 0).diagonal()
        parts = (text, style, said, same, text.roll(1, 0), differs.float())
        return _Conditions(*(each.to(self.device) for each in parts))

    def _update(self, side: str, loss: Tensor, *, held: bool = False) -> None:
        """A step of the optimizer; `held`: of A_G, but not of G."""
        optimizer = self.optimizers[side]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        parameters = self.d_side if side == "d" else [*self.a_g.parameters()] if held else self.g_side
        if held:
            self.g.zero_grad(set_to_none=True)
        parallel.average_gradients(parameters)
        if not torch.nn.utils.clip_grad_norm_(parameters, 5.0).isfinite():
            raise FloatingPointError
        optimizer.step()
        torch.clear_autocast_cache()  # it holds the weights as they were, in bf16

    @torch.no_grad()
    def _average(self, seen: int) -> None:
        half_life = min(HALF_LIFE, 0.1 * seen)
        kept = 0.5 ** (self.options.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.g.parameters()), 1 - kept)

    @torch.no_grad()
    def sample(self, numbers: list[int], codes: Tensor) -> Tensor:
        """What the averaged G makes for the names and styles of pictures, in its space (n, depth, size, size)."""
        text = self.captions.name_vectors(numbers).to(self.device)
        out: Tensor = self.ema(codes.to(self.device), text, self.styles[numbers].to(self.device))
        return out

    def tensors(self) -> dict[str, Tensor]:
        held = {
            f"{name}/{key}": value for name, net in self.nets().items() for key, value in net.state_dict().items()
        }
        held |= {f"ema/{key}": value for key, value in self.ema.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            held |= checkpoint.optimizer_tensors(optimizer, f"optimizer/{name}")
        return held | {"gap": torch.tensor(self.gap, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, net in {**self.nets(), "ema": self.ema}.items():
            prefix = f"{name}/"
            net.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, f"optimizer/{name}", tensors)
        self.gap = float(tensors.get("gap", 0.0))


def _decay(progress: float) -> float:
    """Of the learning rate: level for the first half, then a cosine to a twentieth."""
    late = max(0.0, progress - 0.5) * 2
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, late))) / 2


def _frozen(net: nn.Module, *inputs: Any) -> Any:
    """The network's answer, through which gradients reach its inputs and not its weights."""
    held = {name: value.detach() for name, value in (*net.named_parameters(), *net.named_buffers())}
    return functional_call(net, held, inputs)
