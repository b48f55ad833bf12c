"""What is looked at every twentieth of a stage: a grid, caption retrieval, and whether the training has collapsed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from chatbot.aigc.autoencoder import AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.aigc.journal import Journal
from chatbot.aigc.networks import Autoencoder
from chatbot.aigc.pictures import as_batch, grid, to_images

_SHOWN = 24
_LOOKED_UP = 400
_AT_ONCE = _LOOKED_UP * 64**2  # pixels, of what is made or read together
_WARM = 30_000  # pictures before a missing difference is a collapse
_SATURATED = 30.0  # logits between real and fake, as no penalised D has them

_ALIKE = 1 / 255
"""Between two pictures of a caption, in deviations of the real ones, which are at most 1 where pixels go from -1 to
1: less is under half a step of 8 bits, and nearly every pixel is the same."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`score`: higher is better; `broken`: why the training cannot go on like this, or empty."""

    score: float
    figures: dict[str, float] = field(default_factory=dict)
    broken: str = ""


@torch.no_grad()
def take(
    stage: AutoencoderStage | GanStage, autoencoder: Autoencoder | None, run: Path, step: int, journal: Journal
) -> Snapshot:
    """Look at a stage as it stands; its grid goes to run/grids."""
    items = len(stage.train)
    numbers = [stage.train[n * items // _SHOWN] for n in range(min(_SHOWN, items))]
    reals = as_batch(stage.dataset.pictures, numbers, stage.device)
    place = run / "grids" / f"{stage.name}-{step:07d}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(stage, AutoencoderStage):
        rebuilt = stage.net.decoder(stage.net.encoder(reals)).float()
        error = float((rebuilt - reals).abs().mean() / 2)
        rows = [reals, rebuilt]
        snapshot = Snapshot(-error, {"picture_error": error})
    else:
        codes = _codes(stage, 2 * len(numbers))
        made = [stage.sample(numbers, part).float() for part in codes.chunk(2)]
        rows = [reals]
        if autoencoder is not None:
            rows.append(autoencoder.decode(autoencoder.encode(reals)))
            made = [autoencoder.decode(each) for each in made]
        rows += made
        snapshot = _look(stage, step)
    images = [image for row in rows for image in to_images(row)]
    sheet = grid(images, len(numbers))
    sheet.save(place)
    journal.snapshot(stage.name, step, snapshot.figures, sheet)
    return snapshot


def _look(stage: GanStage, step: int) -> Snapshot:
    """How far pictures at codes of chance are from real ones, which neither D nor A_G judges; captions found by A_G;
    and how much pictures differ between captions and, where a caption has several in a style, between codes, in
    deviations of the real ones."""
    numbers = _spread(stage.train)
    codes = _codes(stage, 2 * len(numbers))
    first, second = (_made(stage, numbers, part) for part in codes.chunk(2))
    reals, _ = stage._pictures(numbers, torch.Generator().manual_seed(0))
    spread = float(reals.std(0).mean()) or 1.0
    apart = (first - second).abs().flatten(1).mean(1) / spread
    several = _several(stage, numbers)
    figures = {
        "distance": _distance(stage, numbers, reals, first),
        "between_captions": float(first.std(0).mean()) / spread,
        "between_codes": float(apart.mean()),
    }
    if stage.shape.text and stage.options.lambda_g > 0:
        figures["retrieval"] = _retrieval(stage, first, numbers)
    broken = ""
    if not all(value == value for value in figures.values()):
        broken = "The pictures are no numbers any more"
    elif step * stage.batch > _WARM:
        of_many = len(set(stage.captions.concepts[numbers].tolist())) > 1
        if stage.shape.text and of_many and figures["between_captions"] < 0.05:
            broken = "All captions give the same picture"
        elif several.any() and float(apart[several].mean()) < _ALIKE:
            broken = "One caption gives the same picture every time"
        elif stage.gap > _SATURATED:
            broken = "D tells every picture of G from the real ones (it is saturated)"
    return Snapshot(-figures["distance"], figures, broken)


def _several(stage: GanStage, numbers: list[int]) -> Tensor:
    """Which captions have several pictures in one style (n,); of others G does well to make the same each time."""
    shown = [(int(stage.captions.concepts[n]), int(stage.styles[n])) for n in stage.train]
    often = {each for each, count in Counter(shown).items() if count > 1}
    return torch.tensor([(int(stage.captions.concepts[n]), int(stage.styles[n])) in often for n in numbers])


def _distance(stage: GanStage, numbers: list[int], reals: Tensor, made: Tensor) -> float:
    """MMD^2 by KID's kernel (Bińkowski et al. 2018) between real pictures and those made for their captions, each
    with its caption and style beside it. No picture is compared with one of its own concept, where there are others:
    what was made for its caption is nearer to it than another real one is."""
    styles = F.one_hot(stage.styles[numbers], stage.shape.styles).float()
    said = torch.cat([stage.captions.name_vectors(numbers), styles], dim=1).to(stage.device)
    said = said * (reals[0].numel() / 2) ** 0.5  # weighs as much as the picture, whose numbers have deviation 1
    one, other = (torch.cat([each.flatten(1), said], dim=1).double() for each in (reals, made))
    concepts = stage.captions.concepts[numbers].to(stage.device)
    kept = concepts[:, None] != concepts[None]
    if not kept.any():  # all show the same
        kept = ~torch.eye(len(numbers), dtype=torch.bool, device=stage.device)
    if len(numbers) < 2:
        return 0.0

    def likeness(left: Tensor, right: Tensor) -> Tensor:
        return ((left @ right.T / left.shape[1] + 1) ** 3)[kept].mean()

    return float(likeness(one, one) + likeness(other, other) - 2 * likeness(one, other))


def _spread(numbers: list[int]) -> list[int]:
    count = min(_LOOKED_UP, len(numbers))
    return [numbers[n * len(numbers) // count] for n in range(count)]


def _retrieval(stage: GanStage, made: Tensor, numbers: list[int]) -> float:
    looks = torch.cat([stage.a_g(part)[2].float() for part in torch.split(made, _part(stage))])
    said = stage.a_g.embed_caption(stage.captions.name_vectors(numbers).to(stage.device)).float()
    concepts = stage.captions.concepts[numbers].to(stage.device)
    found = (looks @ said.T).argmax(1)
    return float((concepts[found] == concepts).float().mean())


def _made(stage: GanStage, numbers: list[int], codes: Tensor) -> Tensor:
    """What the averaged G makes, of large pictures some at a time."""
    size = _part(stage)
    starts = range(0, len(numbers), size)
    return torch.cat([stage.sample(numbers[n : n + size], codes[n : n + size]).float() for n in starts])


def _part(stage: GanStage) -> int:
    return max(1, _AT_ONCE // stage.shape.size**2)


def _codes(stage: GanStage, count: int) -> Tensor:
    return torch.randn(count, stage.shape.code, generator=torch.Generator().manual_seed(4_321))
