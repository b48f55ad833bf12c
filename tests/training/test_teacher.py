"""D's second view: through a network that is frozen, and leaves no trace in what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torchvision import models

from chatbot.aigc import losses, teacher
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.networks import Autoencoder, Shape
from chatbot.aigc.options import Options, from_preset
from chatbot.aigc.second_view import Heads, SecondView
from chatbot.aigc.teacher import Network, Teacher
from chatbot.aigc.train import Stopped
from chatbot.errors import UserError
from tests.training.pictures import classes
from tests.training.runs import after, last, options, train

SMALLEST = "shufflenet_v2_x0_5"  # of torchvision's with layers that count what they see
SHAPE = Shape(resolution=32, text=8, styles=2, code=4, width=32, mapping=16, concepts=3, memory=5, autoencoder=40)


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A teacher of torchvision's that learnt nothing, where torch keeps the weights it downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    place = tmp_path / "torch" / "hub" / "checkpoints" / models.get_model_weights(SMALLEST).DEFAULT.url.split("/")[-1]
    place.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(models.get_model(SMALLEST, weights=None).state_dict(), place)
    return f"torchvision:{SMALLEST}"


def silent(text: str, fraction: float | None) -> None:
    pass


def test_the_teacher_of_the_catalog_knows_what_is_on_a_photograph() -> None:
    network = teacher.network("efficientnet-lite0", silent)
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    pixels = np.asarray(ImageOps.fit(photograph, (224, 224), Image.Resampling.BILINEAR))
    batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    answer = network.net.eval()(network.input_of(batch))
    assert models.EfficientNet_B0_Weights.DEFAULT.meta["categories"][int(answer.argmax())] == "palace"
    view = Teacher("efficientnet-lite0", network, 64)
    assert view.shapes == [(24, 24), (40, 12), (112, 6), (320, 3)]
    assert [tuple(each.shape[1:]) for each in view(batch / 127.5 - 1)] == [(c, s, s) for c, s in view.shapes]


def test_a_teacher_lets_gradients_through_and_stays_as_it_is(stand_in: str) -> None:
    frozen = teacher.load(stand_in, 32, silent)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    pictures = torch.randn(4, 3, 32, 32, requires_grad=True)
    sum(each.square().mean() * (n + 1) for n, each in enumerate(frozen.train()(pictures * 2))).backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in frozen.state_dict().items())


def test_what_the_teacher_sees_leads_back_to_what_g_made_of_latents(stand_in: str) -> None:
    autoencoder = Autoencoder(SHAPE).requires_grad_(False)
    view = SecondView(teacher.load(stand_in, 32, silent), autoencoder.decode)
    reals, fakes = torch.randn(3, 16, 4, 4), torch.randn(3, 16, 4, 4, requires_grad=True)
    features = view.look(reals, fakes, torch.Generator().manual_seed(0))
    heads = Heads(SHAPE, view.teacher.shapes)
    text, style = torch.randn(3, 8), torch.tensor([0, 1, 2])
    assert not any(each.requires_grad for each in features.reals)
    losses.VALUES["projected"].generator(torch.zeros(0), heads(features.fakes, text, style)).backward()
    assert fakes.grad is not None
    assert (fakes.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in autoencoder.parameters())


def test_both_of_a_pair_are_seen_on_the_same_background_moved_and_lit_alike(stand_in: str) -> None:
    view = SecondView(teacher.load(stand_in, 32, silent), None)
    pictures = torch.rand(4, 4, 32, 32) * 2 - 1
    once = view.look(pictures, pictures, torch.Generator().manual_seed(0))
    assert all(torch.equal(real, fake) for real, fake in zip(once.reals, once.fakes, strict=True))
    again = view.look(pictures, pictures, torch.Generator().manual_seed(1))
    assert not torch.equal(once.reals[0], again.reals[0])


def test_heads_learn_to_tell_pictures_apart_and_captions_too(stand_in: str) -> None:
    torch.manual_seed(0)
    frozen = teacher.load(stand_in, 32, silent)
    heads = Heads(SHAPE, frozen.shapes)
    red, blue = torch.full((8, 3, 32, 32), -1.0), torch.full((8, 3, 32, 32), -1.0)
    red[:, 0], blue[:, 2] = 1.0, 1.0
    seen = frozen(torch.cat([red, blue]) + 0.1 * torch.randn(16, 3, 32, 32))
    said = torch.eye(8)[:2].repeat_interleave(8, 0)
    style = torch.zeros(16, dtype=torch.long)
    optimizer = torch.optim.Adam(heads.parameters(), lr=2e-3)
    value = losses.VALUES["projected"]
    for _ in range(60):  # a caption with its own colour is real, with the other's it is not
        loss = value.discriminator(heads(seen, said, style), heads(seen, said.roll(8, 0), style))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right, wrong = heads(seen, said, style), heads(seen, said.roll(8, 0), style)
    assert right.shape == (16, len(frozen.shapes))
    assert (right.mean(1) > wrong.mean(1) + 0.5).all()


@pytest.mark.parametrize("loss", ["projected", "r3gan"])
def test_a_run_with_a_teacher_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, stand_in: str, loss: str) -> None:
    data = classes(tmp_path / "data")
    asked = options(data, loss=loss, kimg=0.05, teacher=stand_in)
    outcome = train(tmp_path / "whole", asked)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", asked, after(10))
    train(tmp_path / "parts", None)
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(name.startswith("heads/") for name in whole)
    unlike(whole, teacher.load(stand_in, 32, silent))
    assert Imagination(outcome.model, tmp_path, "discs@1").plan("a red disc").vectors.shape == (1, 3)


def unlike(kept: dict[str, Tensor], frozen: nn.Module) -> None:
    """No tensor that is kept is one of the teacher's."""
    theirs = [tensor for tensor in frozen.state_dict().values() if tensor.numel() > 1 and tensor.std() > 0]
    assert theirs
    for tensor in kept.values():
        assert not any(tensor.shape == other.shape and torch.equal(tensor, other) for other in theirs)


def test_g_learns_from_the_teacher_alone_where_it_has_no_assistant(tmp_path: Path, stand_in: str) -> None:
    asked = options(
        classes(tmp_path / "data"), loss="projected", teacher=stand_in, lambda_g=0.0, conditioning="none", kimg=0.05
    )
    train(tmp_path / "run", asked)
    moments = {name: t for name, t in last(tmp_path / "run").items() if name.startswith("optimizer/g")}
    assert any(t.any() for name, t in moments.items() if name.endswith("exp_avg"))
    assert not any(name.startswith(("d/", "a_d/")) for name in last(tmp_path / "run"))


def test_the_projected_loss_brings_a_teacher_along_and_does_not_go_without() -> None:
    assert from_preset("cpu-32", data="x", loss="projected").teacher == "efficientnet-lite0"
    assert from_preset("cpu-32", data="x", loss="projected", teacher="torchvision:resnet18").teacher.endswith("18")
    assert from_preset("cpu-32", data="x").teacher == ""
    with pytest.raises(UserError, match="--teacher"):
        Options(data="x", loss="projected")


def test_a_teacher_that_cannot_be_had_is_said_in_a_sentence(stand_in: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no teacher 'resnet18'"):
        teacher.load("resnet18", 32, silent)
    with pytest.raises(UserError, match="no classifier 'retinanet'"):
        teacher.load("torchvision:retinanet", 32, silent)
    weights = next((tmp_path / "torch").rglob("*.pth"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="--teacher efficientnet-lite0"):
        teacher.load(stand_in, 32, silent)
    flat = Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 10)), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UserError, match="convolutional"):
        Teacher("flat", flat, 32)
