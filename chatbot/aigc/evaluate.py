"""Judging: how near a model's pictures are to real ones, and whether they show what was asked for.

All features are those of a judge that is trained on real pictures only (`chatbot.aigc.judge`), and of Inception where
its weights can be had, then with its Inception Score; the arithmetic is torch-fidelity's and prdc's. Next to each
distance stands its floor, the same distance between two halves of the real pictures.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from chatbot.aigc import captions, dataset, distances, emoji, judge, losses, pictures, text
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.model import PictureModel
from chatbot.aigc.pictures import grid, to_images
from chatbot.errors import UserError
from chatbot.settings import cache_folder
from chatbot.training import randomness

Tell = Callable[[str, float | None], None]

JUDGE_STEPS = 450
CANDIDATES = 20
_PROMPTS = Path(__file__).parent / "prompts.tsv"
_MOST = 1_000
_GALLERY = 100

_LEFT_OUT = {
    "classes": "knows classes and reads no sentences, so how many prompts are found is left out",
    "none": "was trained without captions, so how many captions (R@1, R@5) and prompts are found is left out",
}
"""Of models by their conditioning, what cannot be said of them and why."""


def prompts() -> list[tuple[str, str]]:
    """The fifty prompts and the concept each means, in words that are in none of that concept's captions."""
    return [(prompt, concept) for prompt, concept in _rows(_PROMPTS)]


def evaluate(
    folder: Path,
    encoder: Path,
    name: str,
    data: Path | None,
    sheet: Path | None,
    tell: Tell,
    say: Callable[[str], None],
    *,
    nearest: Path | None = None,
) -> dict[str, Any]:
    """Figures of the model in `folder`, against the pictures in `data`, or where that is None those of the default
    model; `sheet` gets the prompts' pictures, or some others where the model reads no prompts; `nearest` gets some
    pictures, each beside the training picture nearest to it.

    Raises:
        UserError: there are too few pictures, or none with a caption though the model reads captions, or those of the
            default model cannot be had.
    """
    imagination = Imagination(folder, encoder, name)
    if left_out := _LEFT_OUT.get(imagination.model.conditioning):
        say(f"{name} {left_out}.")
    if data is None:
        data = emoji.kept(tell)
        say(f"Judging by the pictures of the default model, in {data}.")
    with tempfile.TemporaryDirectory() as scratch:
        real = dataset.prepare(data.expanduser(), Path(scratch), judge.SIZE, tell, say)
        if (count := len(_askable(imagination.model, real, "train"))) < distances.FEWEST:
            raise UserError(
                f"{name} can be judged by {count} of the pictures in {data}; {distances.FEWEST} are the least."
            )
        judged_by = "none" if imagination.model.conditioning == "none" and not _captioned(real) else "text"
        read = captions.read(real.items, judged_by, lambda: text.TextEncoder(encoder), tell)
        measured = Measurement(imagination, real, read, judge_of(real, read, tell), tell)
        figures = measured.all()
        for path, image in ((sheet, measured.sheet), (nearest, measured.nearest)):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    return {"model": name, **figures}


def judge_of(real: dataset.Dataset, read: captions.Captions, tell: Tell) -> judge.Judge:
    """The judge of these pictures, trained once and kept in the cache."""
    mark = hashlib.sha256((real.fingerprint + recipe()).encode()).hexdigest()[:16]
    path = cache_folder() / "judges" / f"{mark}.safetensors"
    if not path.exists():
        judge.save(judge.train(real, read, JUDGE_STEPS, tell), path)
    return judge.load(path)


def recipe() -> str:
    """All that makes a judge of its pictures: another recipe makes another judge."""
    modules = (judge, captions, losses, pictures, text, randomness)
    return "".join(inspect.getsource(module) for module in modules) + str(JUDGE_STEPS)


class Measurement:
    """One model under one judge."""

    def __init__(
        self,
        imagination: Imagination,
        real: dataset.Dataset,
        read: captions.Captions,
        judging: judge.Judge,
        tell: Tell,
    ) -> None:
        self.imagination, self.model, self.real, self.read = imagination, imagination.model, real, read
        self.judge, self.tell = judging, tell
        self.sheet = self.nearest = Image.new("RGB", (1, 1))

    @torch.inference_mode()
    def all(self) -> dict[str, Any]:
        train = spread(_askable(self.model, self.real, "train"), _MOST)
        figures: dict[str, Any] = {"pictures": len(train)}
        made, real = self.made(train), self.images(train)
        made_features, real_features = self.features(made), self.features(real)
        self.sheet = self.shown(made)
        figures |= distances.kid_and_fid(real_features, made_features, "like (judge)")
        figures |= inception(real, made)
        covered = distances.coverage(real_features, made_features)
        figures |= {f"{name} (judge)": value for name, value in covered.items()}
        figures |= self._copies(made, made_features)
        if self.model.conditioning == "none":
            figures |= {
                "diversity": distances.apart(made_features),
                "diversity, real": distances.apart(real_features),
            }
            return figures
        for split, label in (("train", "seen"), ("drawing", "unseen drawing"), ("concept", "unseen concept")):
            captioned = [n for n in _askable(self.model, self.real, split) if self.real.items[n].texts]
            numbers = spread(captioned, 300)
            if len(numbers) >= 20:
                figures |= self._retrieval(self.made(numbers), numbers, label)
                figures |= self._retrieval(self.images(numbers), numbers, f"{label}, real")
        figures |= self._diversity(train)
        return figures | self._asked() if self.model.conditioning == "text" else figures

    def made(self, numbers: Sequence[int]) -> list[Image.Image]:
        """One picture for the name and the style of each, with its number as the seed."""
        made: list[Image.Image] = []
        for start in range(0, len(numbers), 50):
            self.tell("Making pictures", start / len(numbers))
            part = list(numbers[start : start + 50])
            vectors = torch.stack([self._understood(n, n) for n in part])
            made += self.model.make(vectors, [self._style(n) for n in part], part)
        return made

    def images(self, numbers: Sequence[int]) -> list[Image.Image]:
        pictures = torch.from_numpy(self.real.pictures[list(numbers)].copy()).permute(0, 3, 1, 2)
        return to_images(pictures.float() / 127.5 - 1)

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        parts = [self.judge.features(judge.as_seen(images[n : n + 200])) for n in range(0, len(images), 200)]
        return torch.cat(parts).double().numpy()

    def _looks(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.cat([self.judge(judge.as_seen(images[n : n + 200])) for n in range(0, len(images), 200)])

    def _retrieval(self, images: Sequence[Image.Image], numbers: Sequence[int], label: str) -> dict[str, float]:
        shares = zip((1, 5), self.found(images, numbers).mean(0).tolist(), strict=True)
        size = min(_GALLERY, len({item.concept for item in self.real.items}))
        return {f"R@{rank} of {size}, {label}": share for rank, share in shares if rank < size}

    def found(self, images: Sequence[Image.Image], numbers: Sequence[int]) -> NDArray[np.bool_]:
        """R@1 and R@5 of each (n, 2): is a picture's caption the nearest of a hundred, of any concepts, or of all
        there are?"""
        gallery = _first_of_concepts(self.real, range(len(self.real.items)))
        said = self.judge.embed_caption(self.read.name_vectors(list(gallery.values())))
        names = list(gallery)
        likeness = self._looks(images) @ said.T
        hits = np.zeros((len(numbers), 2), dtype=bool)
        for row, number in enumerate(numbers):
            own = names.index(self.real.items[number].concept)
            source = torch.Generator().manual_seed(number)
            order = torch.randperm(len(names), generator=source).tolist()
            rivals = [place for place in order if place != own][: _GALLERY - 1]
            better = int((likeness[row, rivals] > likeness[row, own]).sum())
            hits[row] = better < 1, better < 5
        return hits

    def _copies(self, made: Sequence[Image.Image], features: NDArray[np.float64]) -> dict[str, float]:
        """How far what was made, with its features, lies from the nearest training picture; and how much of it lies
        nearer than almost all (95 in 100) held-out drawings do."""
        numbers = self.real.split("train")
        train = self.features(self.images(numbers))
        away, near = distances.nearest(features, train)
        shown = spread(range(len(made)), 40)
        beside = self.images([numbers[near[place]] for place in shown])
        pairs = [(made[place].resize(other.size), other) for place, other in zip(shown, beside, strict=True)]
        self.nearest = grid([image for pair in pairs for image in pair], 10)
        figures = {"nearest training picture, made (median)": float(np.median(away))}
        held_out = self.real.split("drawing")
        if len(held_out) < 20:
            return figures
        apart, _ = distances.nearest(self.features(self.images(held_out)), train)
        limit = float(np.quantile(apart, 0.05))
        return figures | {
            "nearest training picture, held out (median)": float(np.median(apart)),
            "copy rate (held out: 0.05)": float((away < limit).mean()),
        }

    def _diversity(self, numbers: Sequence[int]) -> dict[str, float]:
        """Mean distance in the judge's features between pictures of one caption and of two, any style; and between
        those of one caption in one style, that of the picture the caption is of."""
        chosen = spread(numbers, 60)
        fours = self._fours(chosen)
        return {
            "diversity of a caption": _mean_apart(fours),
            "diversity of a caption in one style": _mean_apart(self._fours(chosen, one_style=True)),
            "diversity of a concept's real drawings": _mean_apart(self._drawings(chosen)),
            "diversity of captions": distances.apart(np.stack([one[0] for one in fours])),
        }

    def apart(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Mean distance between four pictures of one caption, of each (n,)."""
        return np.asarray([distances.apart(one) for one in self._fours(numbers)])

    def shown(self, images: Sequence[Image.Image]) -> Image.Image:
        """Some of them, spread over all."""
        return grid([images[place] for place in spread(range(len(images)), 40)], 10, scale=1)

    def _fours(self, numbers: Sequence[int], *, one_style: bool = False) -> list[NDArray[np.float64]]:
        """Features of four pictures of the caption of each."""
        fours = []
        for n in numbers:
            seeds = list(range(n, n + 4))
            vectors = torch.stack([self._understood(n, seed) for seed in seeds])
            own = [self._style(n)] * 4
            styles = own if one_style else [self.model.style_of(seed) for seed in seeds]
            fours.append(self.features(self.model.make(vectors, styles, seeds)))
        return fours

    def _understood(self, number: int, seed: int) -> Tensor:
        """The vector that the name of a real picture is read as; a class is its own, and none has none."""
        concept = self.real.items[number].concept
        if self.model.conditioning == "none":
            return torch.zeros(0)
        if self.model.conditioning == "classes":
            return self.model.known[self.model.concepts.index(concept)]
        named = self.model.named(concept)
        return self.model.understand(self.read.name_vectors([number])[0], seed, named).vector

    def _style(self, number: int) -> int:
        """The style of a real picture, as the model numbers it; one that it does not know is any."""
        styles, style = self.model.styles, self.real.items[number].style
        return styles.index(style) if style in styles else len(styles)

    def _drawings(self, numbers: Sequence[int]) -> list[NDArray[np.float64]]:
        groups = []
        for n in numbers:
            same = [m for m in self.real.split("train") if self.real.items[m].concept == self.real.items[n].concept]
            if len(same) > 1:
                groups.append(self.features(self.images(spread(same, 100))))
        return groups

    def _asked(self) -> dict[str, float]:
        """The fifty prompts: does the judge find the right one of twenty concepts, or of all there are?"""
        seen = _first_of_concepts(self.real, self.real.split("train"))
        asked = [(prompt, concept) for prompt, concept in prompts() if concept in seen]
        if not asked:
            return {}
        names = list(seen)
        size = min(CANDIDATES, len(names))
        said = self.judge.embed_caption(self.read.name_vectors(list(seen.values())))
        shown, hits = [], 0
        total = 0
        for row, (prompt, concept) in enumerate(asked):
            plan = self.imagination.plan(prompt, 4, seed=1_000 + 10 * row)
            made = self.model.make(plan.vectors, plan.styles, plan.seeds)
            shown += made[:1]
            source = torch.Generator().manual_seed(row)
            order = torch.randperm(len(names), generator=source).tolist()
            own = names.index(concept)
            choice = [own, *[place for place in order if place != own][: size - 1]]
            likeness = self._looks(made) @ said[choice].T
            hits += int(likeness[0].argmax() == 0)
            total += int((likeness.argmax(1) == 0).sum())
        self.sheet = grid(shown, 10, scale=1)
        return {
            f"prompts found among {size}": hits / len(asked),
            f"prompts found among {size}, mean of 4 seeds": total / (4 * len(asked)),
            "prompts": float(len(asked)),
        }


def inception(real: Sequence[Image.Image], made: Sequence[Image.Image]) -> dict[str, Any]:
    """KID and FID on Inception's features, and its score, of what was made for the captions of `real`, in their
    order; or that it cannot be had."""
    try:
        from torch_fidelity.utils import create_feature_extractor

        wanted = ["2048", "logits_unbiased"]
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            extractor = create_feature_extractor("inception-v3-compat", wanted, cuda=False, verbose=False)
    except Exception:  # whatever the download fails with: there is another extractor
        return {"Inception": "its weights cannot be fetched; the judge's features stand in"}
    found = []
    for images in (real, made):
        batch = ((judge.as_seen(images) + 1) * 127.5).round().clamp(0, 255).byte()
        parts = [extractor(part) for part in torch.split(batch, 50)]
        found.append([torch.cat(outputs).double().numpy() for outputs in zip(*parts, strict=True)])
    (real_features, real_logits), (made_features, made_logits) = found
    return distances.kid_and_fid(real_features, made_features, "(Inception)") | {
        "IS (Inception)": distances.inception_score(made_logits),
        "IS (Inception), real": distances.inception_score(real_logits),
    }


def _askable(model: PictureModel, real: dataset.Dataset, split: str) -> list[int]:
    """Numbers of the pictures of a split whose like a model can be asked for: one of classes knows no others."""
    known = set(model.concepts)
    return [n for n in real.split(split) if model.conditioning != "classes" or real.items[n].concept in known]


def _captioned(real: dataset.Dataset) -> bool:
    return any(item.texts for item in real.items)


def _mean_apart(groups: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([distances.apart(group) for group in groups] or [0.0]))


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, from first to last alike."""
    count = min(most, len(numbers))
    return [numbers[n * len(numbers) // count] for n in range(count)]


def _first_of_concepts(real: dataset.Dataset, numbers: Sequence[int]) -> dict[str, int]:
    first: dict[str, int] = {}
    for number in numbers:
        first.setdefault(real.items[number].concept, number)
    return first


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
