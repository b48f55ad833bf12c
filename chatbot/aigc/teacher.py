"""Teachers: frozen networks trained on photographs, through which D sees pictures a second time.

A teacher takes part in training alone: its weights are in no checkpoint and in no model. `efficientnet-lite0` comes
through the catalog; `torchvision:NAME` is any of torchvision's classifiers that gives maps of features, with the
weights that torchvision names as its default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.catalog import TEACHERS
from chatbot.errors import UserError
from chatbot.fetch import fetch
from chatbot.settings import Settings

Tell = Callable[[str, float | None], None]

TORCHVISION = "torchvision:"

SMALLEST, LARGEST = 96, 224
"""Sides that pictures are shown at: 224 is what these networks learnt from and costs five times as much as 96."""

_DEPTHS = 4


@dataclass(frozen=True, slots=True)
class Network:
    """A classifier as it was trained: its input is (pixels in 0..255 - mean) / deviation. `nodes`: where its features
    are read, shallow first; empty: at the last node of each scale."""

    net: nn.Module
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    nodes: tuple[str, ...] = ()

    def input_of(self, pixels: Tensor) -> Tensor:
        """What it reads, from RGB (N, 3, R, R) in 0..255."""
        mean, deviation = (pixels.new_tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.deviation))
        return (pixels - mean) / deviation


class Teacher(nn.Module):
    """Features of a frozen network at several depths.

    Args:
        name: how it is called in errors; network: the classifier; resolution: side of the pictures it will be shown.

    Raises:
        UserError: it has no maps of features to read.
    """

    def __init__(self, name: str, network: Network, resolution: int) -> None:
        super().__init__()
        from torchvision.models.feature_extraction import create_feature_extractor

        self.side = min(LARGEST, max(SMALLEST, resolution))
        self._network = network
        network.net.eval().requires_grad_(False)
        with torch.no_grad():
            nodes = network.nodes or _nodes(name, network.net, self.side)
            self.body = create_feature_extractor(network.net, list(nodes), suppress_diff_warning=True)
            seen = self(torch.zeros(1, 3, self.side, self.side))
        self.shapes = [(each.shape[1], each.shape[2]) for each in seen]

    def train(self, mode: bool = True) -> Teacher:
        """It never trains: what its normalisation layers count stays as it is."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """RGB (N, 3, R, R) in [-1, 1] to maps of features (N, `shapes[n][0]`, `shapes[n][1]`, `shapes[n][1]`), each
        vector of the same length, since depths differ tenfold in theirs (as in LPIPS, Zhang et al. 2018)."""
        if pictures.shape[2] != self.side:
            sides = (self.side, self.side)
            pictures = F.interpolate(pictures, sides, mode="bilinear", align_corners=False, antialias=True)
        maps = self.body(self._network.input_of((pictures + 1) * 127.5)).values()
        return [each * (each.square().mean(1, keepdim=True) + 1e-6).rsqrt() for each in maps]


def load(name: str, resolution: int, tell: Tell) -> Teacher:
    """The teacher of a name, fetched where it is not there.

    Raises:
        UserError: an unknown name, weights that cannot be fetched (ModelError), or a network without maps.
    """
    return Teacher(name, network(name, tell), resolution)


def network(name: str, tell: Tell) -> Network:
    """The classifier behind a name, with its weights. Raises UserError as `load`."""
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION))
    entry = next((entry for entry in TEACHERS if name in (entry.name, entry.ref)), None)
    if entry is None:
        known = ", ".join(entry.name for entry in TEACHERS)
        raise UserError(f"There is no teacher '{name}'; there is {known}, and {TORCHVISION}MODEL, say resnet18.")
    return _efficientnet_lite0(asyncio.run(fetch(entry, Settings.load().models_folder, tell)))


def _efficientnet_lite0(path: Path) -> Network:
    """Read after its second, fourth, eleventh and last block, as Projected GAN does."""
    from efficientnet_lite_pytorch import EfficientNet

    net: nn.Module = EfficientNet.from_name("efficientnet-lite0", drop_connect_rate=0.0)
    try:
        net.load_state_dict(torch.load(path, weights_only=True))
    except Exception as error:  # torch fails in many ways on a damaged file
        raise UserError(f"The teacher in {path} cannot be loaded ({_first_line(error)}); delete it.") from None
    return Network(net, (127.0,) * 3, (128.0,) * 3, tuple(f"_blocks.{block}" for block in (2, 4, 10, 15)))


def _torchvision(name: str) -> Network:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UserError(f"torchvision has no classifier '{name}'; resnet18 and mobilenet_v3_small are two it has.")
    weights: Any = models.get_model_weights(name).DEFAULT
    try:
        net: nn.Module = models.get_model(name, weights=weights, progress=False)
    except Exception as error:  # no network, no room, a file that is damaged: torch fails in many ways
        raise UserError(
            f"The weights of torchvision's {name} cannot be fetched ({_first_line(error)}); put them into torch's "
            f"cache, or take --teacher {TEACHERS[0].name}, which comes through pip."
        ) from None
    look = weights.transforms()
    return Network(net, tuple(255 * value for value in look.mean), tuple(255 * value for value in look.std))


def _nodes(name: str, net: nn.Module, side: int) -> tuple[str, ...]:
    """The last node of each scale, at most four, shallow first. Raises UserError where there are fewer than two."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    last: dict[int, str] = {}
    try:
        nodes = get_graph_node_names(net, suppress_diff_warning=True)[1]
        seen = create_feature_extractor(net, nodes, suppress_diff_warning=True)(torch.zeros(1, 3, side, side))
    except (RuntimeError, TypeError, ValueError, AssertionError):  # it cannot be traced, or takes one size alone
        seen = {}
    for node, value in seen.items():
        square = isinstance(value, Tensor) and value.dim() == 4 and value.shape[2] == value.shape[3]
        if square and 2 <= value.shape[2] <= side // 4:
            last[value.shape[2]] = node
    if len(last) < 2:
        raise UserError(f"{name} cannot teach: it gives no maps of features; take a convolutional network.")
    return tuple(last[size] for size in sorted(last, reverse=True)[-_DEPTHS:])


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
