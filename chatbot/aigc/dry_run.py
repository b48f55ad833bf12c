"""What a run would cost, by a few real steps on a few real pictures."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chatbot.aigc import captions, dataset
from chatbot.aigc.autoencoder import AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.aigc.networks import LATENT_CHANNELS, Autoencoder, parameters
from chatbot.aigc.options import Options, network_shape
from chatbot.aigc.teacher import load as load_teacher
from chatbot.aigc.text import LENGTH, TextEncoder
from chatbot.aigc.train import AUTOENCODER_SHARE

_SECONDS = 3.0


def estimate(
    options: Options, tell: Callable[[str, float | None], None], complain: Callable[[str], None]
) -> list[str]:
    """Lines that say parameters, memory, images a second and time. Raises UserError where the data is unfit."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = len(dataset.scan(Path(options.data)))
    teacher = load_teacher(options.teacher, options.resolution, tell) if options.teacher else None
    with tempfile.TemporaryDirectory() as name:
        data = dataset.prepare(
            Path(options.data), Path(name), options.resolution, tell, complain, most=max(options.batch, 64)
        )
        tell("Trying some steps", None)
        length = 0
        read = captions.read(data.items, "none" if options.conditioning == "none" else "classes", _none, tell)
        if options.conditioning == "text":  # the captions themselves do not matter here, their length does
            length = LENGTH
            vectors = torch.nn.functional.normalize(torch.randn(len(read.vectors), length), dim=1)
            read = replace(read, vectors=vectors)
        elif options.conditioning == "classes":
            length = read.vectors.shape[1]
        concepts = len({int(read.concepts[n]) for n in data.split("train")})
        shape = network_shape(options, data.pictures.shape[3], max(1, len(data.styles)), length, concepts)
        paces, lines = {}, [f"{pictures} pictures, {options.resolution} px, {device.type}"]
        latents: NDArray[np.float16] | None = None
        autoencoder: Autoencoder | None = None
        if options.space == "latent":
            first = AutoencoderStage(options, shape, data, device)
            paces["autoencoder"] = _pace(first)
            side = options.resolution // 8
            drawn = np.random.default_rng(0).standard_normal((2, len(data.items), LATENT_CHANNELS, side, side))
            latents = drawn.astype(np.float16)
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
    stage.step(0, 0.0)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < _SECONDS:
        steps += 1
        stage.step(steps, 0.0)
    return steps * stage.batch / (time.monotonic() - start)


def _none() -> TextEncoder:
    raise AssertionError("no caption is read")
