"""Training a model further: a run begins with the G and the decoder of a model there is, and with its assistants
where they were kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from chatbot.aigc.model import ABOUT, TRAINING, PictureModel
from chatbot.aigc.networks import Autoencoder, Generator, Shape
from chatbot.aigc.options import Options
from chatbot.errors import UserError

HELD = 0.1
"""Share of the run in which G waits, where D is new: at first that knows nothing it could tell."""

_STYLE = "condition.style.weight"


def options_for(base: Path, **given: Any) -> Options:
    """The options that a model was trained by, what is given over them, and half of the rate.

    Raises:
        ModelError: there is no model in `base`.
    """
    shape = PictureModel(base).shape
    about = json.loads((base / ABOUT).read_text(encoding="utf-8"))
    sizes = {name: getattr(shape, name) for name in ("code", "memory", "width", "mapping", "autoencoder")}
    kept = {name: value for name, value in about["options"].items() if name in Options.__dataclass_fields__}
    options = Options(**{"data": "", **kept, "base": str(base), "shape": sizes, "minutes": None, "kimg": None})
    rate = options.rate if about.get("further") else options.rate / 2  # once, not every time
    return replace(options, **{"rate": rate} | given)


class Begun:
    """A model as a run begins with it.

    Args:
        folder: of the model.
        styles: of the run's pictures.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, folder: Path, styles: Sequence[str]) -> None:
        self._model = PictureModel(folder)
        names = list(self._model.styles)
        self._styles = [names.index(style) if style in names else -1 for style in styles]
        path = folder / TRAINING
        self._assistants = {name: t.float() for name, t in load_file(path).items()} if path.exists() else {}

    def others(self, names: Sequence[str]) -> list[str]:
        """What the model knows beside these concepts: it keeps that."""
        return [name for name in self._model.concepts if name not in set(names)]

    def check(self, shape: Shape) -> None:
        """Raises UserError where its networks are others than those of the run."""
        known = self._model.shape
        for what in ("resolution", "channels", "space", "text", "code", "memory", "width", "mapping", "autoencoder"):
            if getattr(known, what) != getattr(shape, what):
                raise UserError(
                    f"The model was made for another {what} ({getattr(known, what)}, not {getattr(shape, what)}); "
                    "`chatbot train aigc` begins a new one."
                )

    @property
    def has_assistants(self) -> bool:
        return any(name.startswith(("d/", "heads/")) for name in self._assistants)

    def autoencoder(self, net: Autoencoder) -> None:
        """Give it the decoder, which stays as it is, lest G be misread; only the encoder is trained."""
        net.decoder.load_state_dict(self._model.decoder_state())
        net.decoder.requires_grad_(False)
        mean, deviation = self._model.scale()
        net.mean.copy_(mean)
        net.deviation.copy_(deviation)
        self._load(net, "autoencoder/")

    def generator(
        self, g: Generator, names: Sequence[str], keys: Tensor, drawings: Tensor, concepts: Tensor, styles: Tensor
    ) -> None:
        """Give G what the model knows: of `names`, and after them of `others`. A concept that is new begins with its
        drawings (n, depth, size, size), which show `concepts` (n,) of `names` in `styles` (n,), as near as the
        model's first drafts come to them."""
        old = self._model.generator_state()
        self._copy(g, {name: value for name, value in old.items() if not name.startswith("memory.")})
        if g.memory is None or g.draft is None:
            return
        values = self._in_styles(old["memory.values"])
        known = {name: place for place, name in enumerate(self._model.concepts)}
        codes = (drawings.flatten(1) - g.draft.bias.detach()) @ torch.linalg.pinv(g.draft.weight.detach()).T
        others = [known[name] for name in self.others(names)]
        with torch.no_grad():
            g.memory.keys.copy_(torch.cat([keys, old["memory.keys"][others]]))
            g.memory.values[len(names) :] = values[others]
            g.memory.sharpness.copy_(old["memory.sharpness"])
            for place, name in enumerate(names):
                if name in known:
                    g.memory.values[place] = values[known[name]]
                    continue
                mine = concepts == place
                g.memory.values[place] = codes[mine].mean(0) if mine.any() else values.mean((0, 1))
                for style in set(styles[mine].tolist()):
                    g.memory.values[place, style] = codes[mine & (styles == style)].mean(0)

    def assistants(self, nets: Mapping[str, nn.Module]) -> None:
        """Give D, A_D and A_G what they knew, where that was kept."""
        for name, net in nets.items():
            if name != "g":
                self._load(net, f"{name}/")

    def _load(self, net: nn.Module, prefix: str) -> None:
        self._copy(
            net, {name.removeprefix(prefix): t for name, t in self._assistants.items() if name.startswith(prefix)}
        )

    def _copy(self, net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        state = net.state_dict()
        with torch.no_grad():
            for name, value in tensors.items():
                if name.endswith(_STYLE):  # the last row is that of any style
                    value = torch.cat([self._in_styles(value[None, :-1])[0], value[-1:]])
                if name in state and state[name].shape == value.shape:
                    state[name].copy_(value)

    def _in_styles(self, values: Tensor) -> Tensor:
        """Values by the model's styles (n, styles, m) by those of the run; a new one begins with their mean."""
        mean = values.mean(1)
        return torch.stack([values[:, style] if style >= 0 else mean for style in self._styles], dim=1)
