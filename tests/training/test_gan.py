"""One step of G, A_G, D and A_D: what is trained by what."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.aigc import losses, snapshot
from chatbot.aigc.captions import Captions
from chatbot.aigc.dataset import Dataset, Item
from chatbot.aigc.gan import GanStage
from chatbot.aigc.networks import Generator, Memory, Shape
from chatbot.aigc.options import Options
from chatbot.aigc.pictures import jolt, vary
from chatbot.device import computes_bf16
from tests.training.runs import SMALL, options

CONCEPTS, STYLES, TEXT = 8, 2, 12


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def drawings() -> Dataset:
    """Eight concepts in two styles."""
    items = tuple(
        Item(f"{style}/{concept}.png", (f"thing {concept}",), f"style {style}", f"thing {concept}", "train")
        for concept in range(CONCEPTS)
        for style in range(STYLES)
    )
    return Dataset(np.zeros((len(items), 32, 32, 4), np.uint8), items, "fingerprint")


def read(data: Dataset) -> Captions:
    names = tuple(sorted({item.concept for item in data.items}))
    vectors = F.normalize(torch.randn(len(names), TEXT), dim=1)
    concepts = torch.tensor([names.index(item.concept) for item in data.items])
    return Captions(vectors, concepts[:, None], ((),) * len(data.items), concepts, names, noisy=True)


def stage(latents: Tensor | None = None, data: Dataset | None = None, **changes: object) -> GanStage:
    asked: Options = replace(options(Path("none"), batch=16), **changes)  # type: ignore[arg-type]  # its fields, by name
    data = data or drawings()
    shape = Shape(resolution=32, text=TEXT, styles=STYLES, concepts=CONCEPTS if asked.memory else 0, **SMALL)
    if latents is None:
        latents = torch.randn(5, len(data.items), 16, 4, 4)
    return GanStage(asked, shape, data, read(data), latents.half().numpy(), torch.device("cpu"))


def gradients(net: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in net.parameters() if p.grad is not None)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in net.parameters()])


def test_contrast_of_real_pictures_trains_the_assistant_and_of_made_ones_g_alone() -> None:
    here, chosen, generator = stage(), list(range(16)), torch.Generator().manual_seed(1)
    _, views = here._pictures(chosen, generator)
    conditions = here._conditions(chosen, generator)
    _, _, seen = here.a_g(views)
    made = here.g(torch.randn(8, 4), conditions.text[8:], conditions.style[8:])
    on_reals, _ = here._contrasts(seen, made, conditions)
    on_reals.backward(retain_graph=True)
    assert gradients(here.g) == 0
    assert gradients(here.a_g) > 0
    here.a_g.zero_grad(set_to_none=True)
    found = here.a_g.embed_caption(conditions.text)  # real ones that are found as well as can be
    _, on_fakes = here._contrasts(found, made, conditions)
    assert on_fakes > 0
    on_fakes.backward()
    assert gradients(here.g) > 0
    assert gradients(here.a_g) == 0


def test_what_was_made_need_not_be_found_better_than_what_is_real() -> None:
    here, chosen, generator = stage(), list(range(16)), torch.Generator().manual_seed(1)
    reals, _ = here._pictures(chosen, generator)
    conditions = here._conditions(chosen, generator)
    made = reals[8:].clone().requires_grad_()
    _, on_fakes = here._contrasts(here.a_g(reals)[2], made, conditions)
    on_fakes.backward()
    assert on_fakes.item() == pytest.approx(0, abs=1e-6)
    assert made.grad is not None
    worse = F.normalize(torch.randn(16, 256), dim=1)  # real ones that are found worse than what was made
    worse[8:] = -here.a_g.embed_caption(conditions.text)[8:]
    _, on_fakes = here._contrasts(worse, made, conditions)
    assert on_fakes.item() == 0


def test_a_caption_that_was_dropped_is_neither_contrasted_nor_taken_for_another() -> None:
    here, chosen = stage(), list(range(0, 16, 2)) * 2  # each concept twice, and none after itself
    drawn = (here._conditions(chosen, torch.Generator().manual_seed(number)) for number in range(1000))
    found = next(one for one in drawn if not one.said[9:].all())
    dropped = ~found.said
    assert dropped[8:].any()
    assert not found.differs[dropped].any()
    assert not found.differs[dropped.roll(1)].any()  # theirs is the caption of the one before
    assert found.differs.sum() == 16 - (dropped | dropped.roll(1)).sum()
    seen = here.a_g.embed_caption(found.text).detach().clone()  # found as well as can be, better than what is made
    made = torch.randn(8, 16, 4, 4)
    before = here._contrasts(seen, made, found)
    seen[dropped] = F.normalize(torch.randn(int(dropped.sum()), 256), dim=1)
    made[dropped[8:]] += 1
    after = here._contrasts(seen, made, found)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert before[1] > 0
    made[found.said[8:]] += 1
    assert here._contrasts(seen, made, found)[1] != after[1]


def test_pairs_of_one_concept_are_no_mismatch() -> None:
    here = stage()
    chosen = list(range(16))  # each concept twice in a row: a picture and the one before it
    conditions = here._conditions(chosen, torch.Generator().manual_seed(3))
    assert not conditions.differs[1::2].any()
    assert conditions.differs[2::2].sum() >= 5


def test_what_trains_d_does_not_reach_g_and_the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    here, seen = stage(), []
    update = GanStage._update

    def watched(self: GanStage, side: str, loss: Tensor, *, held: bool = False) -> None:
        assert self.d is not None
        assert self.a_d is not None
        before = {name: weights(net) for name, net in self.nets().items()}
        update(self, side, loss, held=held)
        seen.append(
            (side, {name for name, net in self.nets().items() if not torch.equal(weights(net), before[name])})
        )

    monkeypatch.setattr(GanStage, "_update", watched)
    here.step(0, 0.0)
    assert seen == [("d", {"d", "a_d"}), ("g", {"g", "a_g"})]


@pytest.mark.parametrize(
    ("changes", "untouched"),
    [
        ({"lambda_d": 0.0}, {"a_d"}),
        ({"lambda_g": 0.0}, {"a_g"}),
        ({"lambda_d": 0.0, "lambda_g": 0.0}, {"a_d", "a_g"}),
    ],
)
def test_an_assistant_without_weight_learns_nothing(changes: dict[str, float], untouched: set[str]) -> None:
    here = stage(**changes)
    before = {name: weights(net) for name, net in here.nets().items()}
    for number in range(3):
        here.step(number, 0.0)
    assert {name for name, net in here.nets().items() if torch.equal(weights(net), before[name])} == untouched


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_g_is_measured_by_the_d_of_now_against_reals_that_are_jolted_as_its_own(bf16: bool) -> None:
    picture = torch.randn(16, 4, 4).half().float()
    here = stage(picture.expand(5, 16, 16, 4, 4), lambda_g=0.0, lambda_d=0.0, rate=0.05)
    here.bf16 = bf16

    class Perfect(nn.Module):
        """Makes what is real: no D tells both apart, if it sees them alike."""

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor, text: Tensor, style: Tensor) -> Tensor:
            return picture.expand(len(z), -1, -1, -1) * self.one

    here.g = Perfect()  # type: ignore[assignment]  # in the place of G
    here.ema = Perfect()  # type: ignore[assignment]  # in the place of G
    for number in range(3):
        assert here.step(number, 0.0)["g"].item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_plain_gan_has_no_memory_where_none_is_wanted() -> None:
    here = stage(memory=False, lambda_d=0.0, lambda_g=0.0, conditioning="text")
    assert here.g.memory is None
    assert all(math.isfinite(float(value)) for value in here.step(0, 0.0).values())


def test_a_caption_with_one_drawing_in_a_style_may_give_the_same_picture_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "_WARM", 0)
    here = stage()
    monkeypatch.setattr(here, "sample", lambda numbers, codes: here._pictures(numbers, torch.Generator())[0])
    assert not snapshot._look(here, 1).broken
    here.styles[1] = 0  # now one concept has two drawings in one style
    assert "same picture every time" in snapshot._look(here, 1).broken


def _collapsed(here: GanStage, by: float) -> GanStage:
    """Whose averaged G lets codes change its pictures `by` about so many deviations of the real ones."""
    codes = slice(here.ema.condition.length, here.ema.condition.length + here.shape.code)
    with torch.no_grad():
        for each in here.ema.parameters():  # nothing is zero at the end of training
            each.copy_(each + 0.02 * torch.randn(each.shape))
        for _ in range(3):  # nearly linear in so small a change
            here.ema.into.weight[:, codes] *= by / snapshot._look(here, 1).figures["between_codes"]
    return here


WARM = 2000  # steps, of 16 pictures each


def test_two_pictures_of_a_caption_that_nobody_can_tell_apart_are_a_collapse() -> None:
    told = {}
    for by in (0.002, 0.02):
        here = stage()
        here.styles[:] = 0  # every concept has two drawings in one style
        told[by] = snapshot._look(_collapsed(here, by), WARM)
        assert told[by].figures["between_codes"] == pytest.approx(by, rel=0.2)
    assert told[0.002].broken == "One caption gives the same picture every time"
    assert not told[0.02].broken


def test_where_all_show_the_same_thing_pictures_may_be_alike() -> None:
    data = drawings()
    data = replace(data, items=tuple(replace(item, concept="disc", texts=("a disc",)) for item in data.items))
    here = _collapsed(stage(data=data), 0.02)
    with torch.no_grad():
        here.ema.condition.style.weight.zero_()
        assert here.ema.memory is not None
        here.ema.memory.values[:] = here.ema.memory.values.mean(1, keepdim=True)
    looked = snapshot._look(here, WARM)
    assert looked.figures["between_captions"] < 0.05
    assert not looked.broken
    everything = replace(here.captions, concepts=torch.arange(16))  # were it of many, that would be a collapse
    here.captions = everything
    assert snapshot._look(here, WARM).broken == "All captions give the same picture"


def test_large_pictures_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    here, seen = stage(), []
    whole = snapshot._look(here, 1)
    sample = here.sample

    def watched(numbers: list[int], codes: Tensor) -> Tensor:
        seen.append(len(numbers))
        return sample(numbers, codes)

    monkeypatch.setattr(here, "sample", watched)
    monkeypatch.setattr(snapshot, "_AT_ONCE", 5 * here.shape.size**2)
    parts = snapshot._look(here, 1)
    assert seen == [5, 5, 5, 1] * 2
    assert parts.figures == pytest.approx(whole.figures, rel=1e-4)


def test_memory_begins_with_as_many_large_drawings_as_a_computer_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = tuple(Item(f"{n}.png", (f"thing {n}",), "", f"thing {n}") for n in range(1100))
    blank = np.broadcast_to(np.uint8(0), (len(items), 128, 128, 4))
    shape = Shape(resolution=128, space="pixels", text=TEXT, concepts=len(items), **SMALL)
    begun: list[int] = []

    def watched(self: Generator, keys: Tensor, drawings: Tensor, concepts: Tensor, styles: Tensor) -> None:
        begun.append(drawings.numel())

    monkeypatch.setattr(Generator, "remember", watched)
    data = Dataset(blank, items, "fingerprint")
    GanStage(options(Path("none"), space="pixels"), shape, data, read(data), None, torch.device("cpu"))
    assert begun == [2**26]


def test_what_has_to_be_exact_is_so_in_bf16_too() -> None:
    here = stage()
    memory, vectors = here.g.memory, here.captions.vectors
    text = F.normalize(vectors + vectors.roll(1, 0), dim=1)  # each between two
    assert isinstance(memory, Memory)
    with torch.no_grad():
        memory.sharpness.fill_(math.log(100.0))
    one, other = (F.normalize(1 + torch.randn(16, 256), dim=1) for _ in range(2))
    apart = torch.eye(16, dtype=torch.bool)
    pictures = torch.rand(8, 4, 64, 64)

    def answers() -> list[Tensor]:
        found = memory(text, torch.zeros(len(text), dtype=torch.long))
        contrast = losses.contrast(one, other, apart, torch.tensor(math.log(100.0)))
        varied = vary(pictures, torch.Generator().manual_seed(0))
        jolted = jolt(pictures, pictures, torch.Generator().manual_seed(0))[0]
        return [found.detach(), contrast, varied, jolted]

    exact = answers()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = answers()
    for right, close in zip(exact, rounded, strict=True):
        assert (close.float() - right).abs().max() < 0.02


def test_a_gpu_that_only_emulates_bf16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, one=native: one or including_emulation
        )
        assert computes_bf16(torch.device("cuda")) is native
    assert not stage().bf16, "a CPU trains in float32, and to the bit"


def test_two_concepts_of_one_name_are_no_negatives_of_each_other() -> None:
    here = stage()
    assert not here._conditions([0, 2], torch.Generator().manual_seed(0)).same[0, 1]
    here.captions = replace(here.captions, names=torch.zeros_like(here.captions.names))
    conditions = here._conditions([0, 2], torch.Generator().manual_seed(0))
    assert conditions.same.all()
    assert not conditions.differs.any()


def test_a_picture_without_a_caption_is_shown_as_such() -> None:
    here = stage()
    here.captions.vectors[0] = 0
    drawn = here.captions.draw(list(range(16)), torch.Generator().manual_seed(0))
    assert not drawn[:2].any()
    assert torch.allclose(drawn[2:].norm(dim=1), torch.ones(14))
