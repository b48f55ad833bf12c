"""The picture model's training beside other ways, after equal minutes: `python -m tests.benchmarks.pictures DATA`.

Same pictures, same machine, one arm after the other: `chatbot train aigc`; the plain loop its objective was first
written down for (DCGAN, BCE, Adam 2e-4, batch 64, with an assistant for each side in the plainest reading: A_G reads
the code back out of G's picture, A_D tells real from made out of D's features); and lightweight-gan from the package
registry, which wants CUDA and is told that the CPU is one. All are judged alike, by a judge that saw real pictures
only, beside the pictures they were trained on and those held out, with how much of them is a copy: the product's
generator begins with the principal components of its drawings, so that there is an arm without that memory, too. Then
the assistants apart, on stacked digits.

DATA is what `python -m chatbot.aigc.emoji DATA` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from chatbot.aigc import captions, dataset, distances, evaluate, judge
from chatbot.aigc.dataset import Dataset
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.pictures import as_batch, to_images
from chatbot.aigc.text import TextEncoder
from chatbot.catalog import DEFAULTS
from chatbot.fetch import model_file
from chatbot.settings import Settings
from tests.benchmarks import assistants
from tests.benchmarks.peers import peer

SAMPLES = 1_000
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pictures", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10, help="for each arm (default 10)")
    parser.add_argument("--digits", type=float, default=2, help="minutes for each arm on digits (default 2)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["CHATBOT_HOME"] = str(scratch / "home")
        real = dataset.prepare(arguments.data, scratch / "real", SIZE, _silent, print)
        encoder = model_file(DEFAULTS["encoder"], Settings.load().models_folder).parent
        reader = TextEncoder(encoder)
        read = captions.read(real.items, "text", lambda: reader, _silent)
        judging = evaluate.judge_of(real, read, _silent)
        numbers = evaluate.spread(real.split("train"), SAMPLES)

        def seen(pictures: list[Image.Image]) -> NDArray[np.float64]:
            parts = [judge.as_seen(pictures[at : at + 500]) for at in range(0, len(pictures), 500)]
            return torch.cat([judging.features(part) for part in parts]).double().numpy()

        reals, train = seen(_images(real, numbers)), seen(_images(real, real.split("train")))
        held = seen(_images(real, [*real.split("drawing"), *real.split("concept")]))
        limit = float(np.quantile(distances.nearest(held, train)[0], 0.05))
        rows = []
        for label, make in ARMS.items():
            made, shown = make(arguments.data, real, scratch, arguments.minutes)
            features = seen(made)
            figures = distances.kid_and_fid(reals, features, "like (judge)") | distances.coverage(reals, features)
            figures["held"] = distances.kid(held, features)
            figures["copies"] = float((distances.nearest(features, train)[0] < limit).mean())
            found = _retrieval(judging, read, real, numbers, made) if label.startswith("chatbot") else None
            rows.append((label, figures, found, shown))
            print(f"{label}: {figures}", file=sys.stderr)
    print(f"{arguments.minutes:g} minutes an arm, {len(train):,} pictures at {SIZE} px, {SAMPLES:,} judged\n")
    print(
        "| arm | KID-like | over ours | KID-like, held out | FID-like | coverage | copies | captions found of 100 "
        "| pictures shown |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    ours = rows[0][1]["KID-like (judge)"]
    for label, figures, found, shown in rows:
        kid = figures["KID-like (judge)"]
        told = "no captions" if found is None else f"{found:.2f}"
        print(
            f"| {label} | {kid:.4f} | {kid / ours:.1f} | {figures['held']:.4f} | {figures['FID-like (judge)']:.1f} "
            f"| {figures['coverage']:.2f} | {figures['copies']:.2f} | {told} | {shown:,} |"
        )
    floor = rows[0][1]
    print(
        f"| real ones: two halves, held out | {floor['KID-like (judge), floor']:.4f} | "
        f"| {distances.kid(held, reals):.4f} | {floor['FID-like (judge), floor']:.1f} | | 0.05 | | |\n"
    )
    print(assistants.table(arguments.digits))


def _silent(text: str, fraction: float | None = None) -> None:
    return None


def _images(real: Dataset, numbers: list[int]) -> list[Image.Image]:
    return to_images(as_batch(real.pictures, numbers, torch.device("cpu")))


def _retrieval(
    judging: judge.Judge, read: captions.Captions, real: Dataset, numbers: list[int], made: list[Image.Image]
) -> float:
    """How often the caption of a picture is the nearest of a hundred."""
    gallery = evaluate._first_of_concepts(real, real.split("train"))
    names = list(gallery)
    said = judging.embed_caption(read.name_vectors(list(gallery.values())))
    likeness = judging(judge.as_seen(made)) @ said.T
    hits = 0
    for row, number in enumerate(numbers):
        own = names.index(real.items[number].concept)
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(number)).tolist()
        rivals = [place for place in order if place != own][:99]
        hits += int((likeness[row, rivals] > likeness[row, own]).sum() == 0)
    return hits / len(numbers)


def _ours(data: Path, real: Dataset, scratch: Path, minutes: float, *more: str) -> tuple[list[Image.Image], int]:
    run = scratch / "-".join(["ours", *more])
    command = [sys.executable, "-m", "chatbot", "train", "aigc", "--data", str(data), "--out", str(run)]
    subprocess.run([*command, "--minutes", str(minutes), "--preset", "cpu-64", *more], check=True)
    encoder = model_file(DEFAULTS["encoder"], Settings.load().models_folder).parent
    imagination = Imagination(run / "model", encoder, "ours@1")
    model = imagination.model
    train = evaluate.spread(real.split("train"), SAMPLES)
    made: list[Image.Image] = []
    for number in train:
        item = real.items[number]
        plan = imagination.plan(item.texts[0], seed=number, style=item.style)
        made += model.make(plan.vectors, plan.styles, plan.seeds)
    held = json.loads((run / "run.json").read_text())
    batch = held["options"]["batch"]
    batches = {"autoencoder": batch // 4, "gan": batch}
    return made, sum(steps * batches[stage] for stage, steps in held["plan"].items())


def _without_memory(data: Path, real: Dataset, scratch: Path, minutes: float) -> tuple[list[Image.Image], int]:
    return _ours(data, real, scratch, minutes, "--no-memory")


class _Generator(nn.Module):
    """DCGAN (Radford et al. 2016), 100 numbers to 64x64, four channels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(100, width * 8, 4, 1, 0, bias=False)]
        for scale in (8, 4, 2):
            layers += [nn.BatchNorm2d(width * scale), nn.ReLU(True)]
            layers.append(nn.ConvTranspose2d(width * scale, width * scale // 2, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, 4, 4, 2, 1, bias=False), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.body(z[:, :, None, None])
        return out


class _Trunk(nn.Module):
    """DCGAN's discriminator up to its last convolution: (N, 512, 4, 4)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(4, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
        for scale in (1, 2, 4):
            layers.append(nn.Conv2d(width * scale, width * scale * 2, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(width * scale * 2), nn.LeakyReLU(0.2, True)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def _plain(data: Path, real: Dataset, scratch: Path, minutes: float) -> tuple[list[Image.Image], int]:
    torch.manual_seed(0)
    g, d, a_g = _Generator(), _Trunk(), _Trunk()
    head, a_d, code = nn.Conv2d(512, 1, 4), nn.Conv2d(512, 1, 4), nn.Conv2d(512, 100, 4)
    for net in (g, d, a_g):
        net.apply(_dcgan_weights)
    optimizer_d = torch.optim.Adam([*d.parameters(), *head.parameters(), *a_d.parameters()], 2e-4, (0.5, 0.999))
    optimizer_g = torch.optim.Adam([*g.parameters(), *a_g.parameters(), *code.parameters()], 2e-4, (0.5, 0.999))
    numbers = np.array(real.split("train"))
    random = np.random.default_rng(0)
    end, rounds = time.monotonic() + minutes * 60, 0
    while time.monotonic() < end:
        chosen = random.choice(numbers, 64, replace=False).tolist()
        reals, z = as_batch(real.pictures, chosen, torch.device("cpu")), torch.randn(64, 100)
        fakes = g(z)
        loss_d = torch.zeros(())
        for batch, target in ((reals, 1.0), (fakes.detach(), 0.0)):
            features = d(batch)
            for judged in (head, a_d):
                logits = judged(features).flatten()
                loss_d = loss_d + F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        optimizer_d.zero_grad(set_to_none=True)
        loss_d.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer_d.step()
        logits = head(d(fakes)).flatten()
        loss_g = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        loss_g = loss_g + F.mse_loss(code(a_g(fakes)).flatten(1), z)
        optimizer_g.zero_grad(set_to_none=True)
        loss_g.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer_g.step()
        rounds += 64
    made: list[Image.Image] = []
    g.eval()
    with torch.no_grad():
        for _ in range(SAMPLES // 100):
            made += to_images(g(torch.randn(100, 100)))
    return made, rounds


def _dcgan_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


_LIGHTWEIGHT = """
import importlib.util, pathlib, sys, time, torch
torch.cuda.empty_cache = lambda: None
torch.Tensor.cuda = lambda self, *a, **k: self
torch.nn.Module.cuda = lambda self, *a, **k: self
spec = importlib.util.find_spec("lightweight_gan")
source = (pathlib.Path(spec.origin).parent / "lightweight_gan.py").read_text()
source = source.replace("f'cuda:{self.rank}'", "'cpu'").replace("pin_memory = True", "pin_memory = False")
source = source.replace("torch.cuda.is_available()", "True")
space = {"__name__": "lightweight"}
torch.cuda.is_available, truly = lambda: True, torch.cuda.is_available
exec(compile(source, "lightweight_gan.py", "exec"), space)
torch.cuda.is_available = truly
pictures, out, seconds = sys.argv[1], pathlib.Path(sys.argv[2]), float(sys.argv[3])
out.mkdir()
trainer = space["Trainer"](
    name="bench", results_dir=str(out / "r"), models_dir=str(out / "m"), image_size=64, transparent=True,
    batch_size=10, gradient_accumulate_every=4, num_workers=0, attn_res_layers=[32], disc_output_size=1,
    use_aim=False,
    save_every=10**9, evaluate_every=10**9, aug_prob=0.25, aug_types=["translation"],
)
trainer.set_data_src(pictures)
end = time.monotonic() + seconds
while time.monotonic() < end:
    trainer.train()
print(int(trainer.steps) * 40)
model = trainer.GAN.G.eval()  # its average of G begins after 20,000 steps, and until then is a copy of long ago
from torchvision.utils import save_image
with torch.no_grad():
    for start in range(0, 1000, 20):
        for n, image in enumerate(model(torch.randn(20, trainer.GAN.latent_dim)).clamp(0, 1)):
            save_image(image, str(out / f"{start + n}.png"))
"""


def _lightweight(data: Path, real: Dataset, scratch: Path, minutes: float) -> tuple[list[Image.Image], int]:
    executables = peer("lightweight-gan", "lightweight-gan", "torch", "torchvision", "setuptools<81")
    folder = scratch / "pictures"
    folder.mkdir()
    for number in real.split("train"):
        _images(real, [number])[0].save(folder / f"{number}.png")
    script = scratch / "lightweight.py"
    script.write_text(_LIGHTWEIGHT)
    out = scratch / "lightweight"
    command = [str(executables / "python"), str(script), str(folder), str(out), str(minutes * 60)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    made = [Image.open(out / f"{number}.png").convert("RGBA") for number in range(SAMPLES)]
    return made, int(done.stdout.strip().splitlines()[-1])


ARMS: dict[str, Callable[[Path, Dataset, Path, float], tuple[list[Image.Image], int]]] = {
    "chatbot train aigc": _ours,
    "chatbot train aigc --no-memory": _without_memory,
    "DCGAN, BCE": _plain,
    "lightweight-gan": _lightweight,
}


if __name__ == "__main__":
    main()
