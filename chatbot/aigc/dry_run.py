"""What a run would cost, by a few real steps of its networks; of its pictures only a few are decoded."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatbot.aigc import captions, dataset
from chatbot.aigc.autoencoder import VIEWS, AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.aigc.networks import LATENT_CHANNELS, REDUCTION, Autoencoder, parameters
from chatbot.aigc.options import Options, network_shape
from chatbot.aigc.teacher import load as load_teacher
from chatbot.aigc.text import LENGTH, TextEncoder
from chatbot.aigc.train import AUTOENCODER_SHARE

_SECONDS = 3.0
_LOOKED_AT = 64  # pictures, or as many as a batch has


def estimate(
    options: Options, tell: Callable[[str, float | None], None], complain: Callable[[str], None]
) -> list[str]:
    """Lines that say parameters, memory, images a second and time. Raises UserError where the data is unfit."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(options.data)
    items = tuple(dataset.scan(folder))
    teacher = load_teacher(options.teacher, options.resolution, tell) if options.teacher else None
    with tempfile.TemporaryDirectory() as name:
        most = max(options.batch, _LOOKED_AT)
        some = dataset.prepare(folder, Path(name), options.resolution, tell, complain, most=most).pictures
        tell("Trying some steps", None)
        # The others are blank, holes in a file, which take no room: what is seen in them changes no cost.
        pictures = np.lib.format.open_memmap(
            Path(name, "all.npy"), mode="w+", dtype=np.uint8, shape=(len(items), *some.shape[1:])
        )
        pictures[: len(some)] = some
        data = dataset.Dataset(pictures, items, "")
        read = captions.read(items, options.conditioning, _Unread, tell)
        length = read.vectors.shape[1]
        concepts = len(read.known(data.split("train"))[0]) if length and options.memory else 0
        shape = network_shape(options, some.shape[3], len(data.styles), length, concepts)
        paces, lines = {}, [f"{len(items)} pictures, {options.resolution} px, {device.type}"]
        latents: NDArray[np.float16] | None = None
        autoencoder: Autoencoder | None = None
        if options.space == "latent":
            first = AutoencoderStage(options, shape, data, device)
            paces["autoencoder"] = _pace(first)
            side, chance = options.resolution // REDUCTION, np.random.default_rng(0)
            latents = np.empty((1 + VIEWS, len(items), LATENT_CHANNELS, side, side), np.float16)
            for view in latents:
                view[:] = chance.standard_normal(view.shape, np.float32)
            autoencoder = first.net.eval().requires_grad_(False)
            lines.append(f"autoencoder {parameters(first.net) / 1e6:.1f} M parameters")
        second = GanStage(options, shape, data, read, latents, device, teacher=teacher, autoencoder=autoencoder)
        paces["gan"] = _pace(second)
    counts = ", ".join(f"{name} {parameters(net) / 1e6:.1f}" for name, net in second.nets().items())
    lines.append(f"parameters in millions: {counts}")
    if device.type == "cuda":
        lines.append(f"memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU")
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        lines.append(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB")
    lines += [f"{name}: {pace:.0f} images/s" for name, pace in paces.items()]
    if options.kimg is not None:
        share = {"autoencoder": AUTOENCODER_SHARE, "gan": 1.0}
        seconds = sum(options.kimg * 1000 * share[name] / pace for name, pace in paces.items())
        lines.append(f"{options.kimg:g} kimg take about {seconds / 60:.0f} min")
    elif options.minutes is not None:
        seconds = options.minutes * 60 * (1 - AUTOENCODER_SHARE if "autoencoder" in paces else 1)
        lines.append(f"{options.minutes:g} min show the GAN about {seconds * paces['gan'] / 1000:.0f} kimg")
    return lines


def _pace(stage: AutoencoderStage | GanStage) -> float:
    """Images a second, the first step not counted."""
    _try(stage, 0)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < _SECONDS:
        steps += 1
        _try(stage, steps)
    return steps * stage.batch / (time.monotonic() - start)


def _try(stage: AutoencoderStage | GanStage, step: int) -> None:
    with suppress(FloatingPointError):  # at a rate that is far too high: it takes as long
        stage.step(step, 0.0)


class _Unread(TextEncoder):
    """Of captions that nobody reads: their number matters here, and their length, not what they say."""

    def __init__(self) -> None:
        pass

    def embed_many(self, texts: Sequence[str], tell: Callable[[str, float | None], None]) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(len(texts), LENGTH), dim=1)
