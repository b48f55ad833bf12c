"""A trained model as it ships: generator and decoder, and what it knows how to draw."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from chatbot.aigc.dataset import Dataset
from chatbot.aigc.networks import Autoencoder, Decoder, Generator, Shape
from chatbot.aigc.options import Options
from chatbot.aigc.pictures import to_images
from chatbot.errors import ModelError

WEIGHTS, ABOUT = "model.safetensors", "model.json"

TRAINING = "training.safetensors"
"""What training goes on with beside them: D, A_D and A_G, and the encoder of the autoencoder."""

_ASSISTANTS = ("d/", "a_d/", "a_g/", "heads/", "autoencoder/encoder.")

_EIGHT_BITS = ("memory.keys", "memory.values")
"""The largest tensors are kept in eight bits, with a scale for each column."""

SNAP, PULL = 60.0, 2.0
"""How much likelier what is nearer is chosen, and how far a prompt is drawn towards what was."""

UNKNOWN = 0.45
"""Cosine to the nearest thing it knows, below which a prompt means nothing to the model."""


@dataclass(frozen=True, slots=True)
class Understood:
    """How a prompt was read: the vector G is given, the thing the model knows that it was taken for, and how near
    (cosine) the nearest is; no number (nan) where the model has no memory, and cannot tell."""

    vector: Tensor
    taken_for: str
    likeness: float


class PictureModel:
    """Makes pictures of captions' vectors.

    Raises:
        ModelError: the folder holds no model, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
            self.shape = Shape(**about["shape"])
            self.styles: list[str] = about["styles"]
            self.concepts: list[str] = about["concepts"]
            self.conditioning: str = about["conditioning"]
            self._generator = Generator(self.shape).eval().requires_grad_(False)
            weights = _part(tensors, "generator/")
            weights |= {name: weights[name] * scale for name, scale in _part(tensors, "scale/").items()}
            self._generator.load_state_dict(weights)
            self._decoder: Decoder | None = None
            if self.shape.space == "latent":
                self._decoder = Decoder(self.shape).eval().requires_grad_(False)
                self._decoder.load_state_dict(_part(tensors, "decoder/"))
                self._mean, self._deviation = tensors["mean"].float(), tensors["deviation"].float()
            self._by_name = {words(concept): number for number, concept in enumerate(self.concepts)}
            memory = self._generator.memory
            self.known = F.normalize(memory.keys, dim=1) if memory is not None else torch.zeros(0, 0)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"The picture model in {folder} cannot be loaded ({error}).") from None

    def generator_state(self) -> dict[str, Tensor]:
        return self._generator.state_dict()

    def decoder_state(self) -> dict[str, Tensor]:
        return {} if self._decoder is None else self._decoder.state_dict()

    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents, (1, depth, 1, 1) each."""
        return self._mean, self._deviation

    @torch.inference_mode()
    def make(self, text: Tensor, styles: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
        """One picture for each row of `text` (n, text), its style number (`len(styles)`: any) and its seed."""
        codes = torch.stack([torch.randn(self.shape.code, generator=_source(seed)) for seed in seeds])
        return to_images(self.decode(self._generator(codes, text, torch.tensor(styles))))

    def decode(self, made: Tensor) -> Tensor:
        """What G makes, as pictures (N, C, R, R)."""
        if self._decoder is None:
            return made
        out: Tensor = self._decoder(made * self._deviation + self._mean)
        return out

    def understand(self, vector: Tensor, seed: int, named: int | None = None) -> Understood:
        """Read a prompt's vector (text,): said in other words than the captions', it lies far from all of them, and
        is drawn towards one that is near, so that one thing is made and no blend of many. Where several are about as
        near, as fruits are to "a fruit", the seed chooses (Gumbel's maximum). `named` is the number of what
        the prompt calls by its name."""
        if not len(self.known):
            return Understood(vector, "", math.nan)
        likeness = self.known @ vector
        chance = torch.rand(len(likeness), generator=_source(seed + 2)).clamp(1e-6, 1 - 1e-6)
        chosen = int((SNAP * likeness - (-chance.log()).log()).argmax()) if named is None else named
        drawn = F.normalize(vector + PULL * self.known[chosen], dim=0)
        return Understood(drawn, self.concepts[chosen], float(likeness.max()))

    def named(self, text: str) -> int | None:
        """The number of the thing that a text is the name of, articles aside."""
        return self._by_name.get(words(text)) if text else None

    def style_of(self, seed: int) -> int:
        """The style that a seed draws where none is asked for."""
        return int(torch.randint(len(self.styles), (1,), generator=_source(seed + 1)).item()) if self.styles else 0


def words(text: str) -> tuple[str, ...]:
    """By which names are told apart: no case, no articles."""
    return tuple(word for word in re.findall(r"\w+|[#*]", text.lower()) if word not in ("a", "an", "the"))


def export(
    folder: Path,
    shape: Shape,
    tensors: Mapping[str, Tensor],
    data: Dataset,
    names: Sequence[str],
    options: Options,
    figures: dict[str, Any],
) -> None:
    """Write the model of a checkpoint: averaged G, decoder, and the `names` of the concepts it knows; and beside it
    what training goes on with."""
    held: dict[str, Tensor] = {}
    for name, value in _part(tensors, "ema/").items():
        if name in _EIGHT_BITS:
            scale = value.abs().amax(tuple(range(value.dim() - 1))).clamp(min=1e-12) / 127
            held |= {f"generator/{name}": (value / scale).round().to(torch.int8), f"scale/{name}": scale}
        else:
            held[f"generator/{name}"] = value.half()
    if shape.space == "latent":
        autoencoder = Autoencoder(shape)
        autoencoder.load_state_dict(_part(tensors, "autoencoder/"))
        held |= {f"decoder/{name}": value.half() for name, value in autoencoder.decoder.state_dict().items()}
        held |= {"mean": autoencoder.mean, "deviation": autoencoder.deviation}
    about = {
        "shape": asdict(shape),
        "styles": data.styles,
        "conditioning": options.conditioning,
        "concepts": list(names) if shape.concepts else [],
        "data_fingerprint": data.fingerprint,
        "further": bool(options.base),
        "options": {name: value for name, value in options.as_json().items() if name not in ("data", "base")},
        "figures": figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value.half() for name, value in tensors.items() if name.startswith(_ASSISTANTS)}
    for name, some in ((TRAINING, kept), (WEIGHTS, held)):
        part = folder / f"{name}.partial"
        save_file({key: value.contiguous() for key, value in some.items()}, part)
        part.replace(folder / name)
    (folder / ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}


def _source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed & (2**63 - 1))
