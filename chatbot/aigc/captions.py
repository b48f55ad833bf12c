"""The captions of a run as vectors, and how one is drawn for each picture at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from chatbot.aigc.dataset import Item
from chatbot.aigc.text import TextEncoder
from chatbot.errors import UserError

MOST_KNOWN = 4096

TEMPLATES = ("{}", "a {}", "a picture of a {}", "{} sticker")
"""How the name of a concept is said."""


@dataclass(frozen=True, slots=True)
class Captions:
    """Vectors of unit length (M, text), and which of them belong to a picture: `names` (N, templates) and `keywords`
    (a list of numbers for each picture). `concepts` (N,) numbers what the pictures show."""

    vectors: Tensor
    names: Tensor
    keywords: tuple[tuple[int, ...], ...]
    concepts: Tensor
    concept_names: tuple[str, ...]
    noisy: bool

    def name_vectors(self, numbers: Sequence[int]) -> Tensor:
        """The plain names of pictures (n, text)."""
        return self.vectors[self.names[torch.as_tensor(numbers), 0]]

    def known(self, numbers: Sequence[int]) -> tuple[list[str], Tensor]:
        """The concepts of pictures, the commonest 4096, and for each the direction between its name and its keywords
        (n, text)."""
        first: dict[int, int] = {}
        for number in numbers:
            first.setdefault(int(self.concepts[number]), number)
        counts = Counter(int(self.concepts[number]) for number in numbers)
        chosen = sorted(concept for concept, _ in counts.most_common(MOST_KNOWN))
        vectors = []
        for concept in chosen:
            name = self.vectors[self.names[first[concept], 0]]
            words = self.vectors[list(self.keywords[first[concept]])]
            vectors.append(name + words.mean(0) if len(words) else name)
        return [self.concept_names[concept] for concept in chosen], F.normalize(torch.stack(vectors), dim=1)

    def draw(self, numbers: Sequence[int], generator: torch.Generator) -> Tensor:
        """A caption for each picture (n, text): its name, its name among keywords, or keywords alone; then
        conditioning augmentation (StackGAN, Zhang et al. 2017): a random turn by up to 30 degrees, so that what
        lies near a caption means the same."""
        chances = torch.rand(len(numbers), 4, generator=generator)
        chosen = self.vectors[self._name(numbers, chances[:, 0])].clone()
        for row, number in enumerate(numbers):
            keywords = self.keywords[number]
            if not keywords or (kind := float(chances[row, 1])) < 0.4:
                continue
            count = min(len(keywords), 1 + int(chances[row, 2] * 3))
            order = torch.randperm(len(keywords), generator=generator)[:count]
            words = self.vectors[[keywords[place] for place in order.tolist()]].sum(0)
            if kind < 0.75 or count == 1 < len(keywords):
                words = words + chosen[row] * (0.5 + count * float(chances[row, 3]))
            chosen[row] = words
        chosen = F.normalize(chosen, dim=1)
        if not self.noisy:
            return chosen
        noise = torch.randn(chosen.shape, generator=generator) / chosen.shape[1] ** 0.5
        noise = noise * chosen.any(1, keepdim=True)  # what has no caption is given none
        return F.normalize(chosen + noise * 0.6 * torch.rand(len(chosen), 1, generator=generator), dim=1)

    def _name(self, numbers: Sequence[int], chance: Tensor) -> Tensor:
        template = (chance * self.names.shape[1]).long()
        return self.names[torch.as_tensor(numbers), template]


def read(
    items: Sequence[Item],
    conditioning: str,
    encoder: Callable[[], TextEncoder],
    tell: Callable[[str, float | None], None],
) -> Captions:
    """The captions of the items: read by the text encoder, or one number a class, or none.

    Raises:
        UserError: no picture has a caption, and captions were asked for.
    """
    concept_names = tuple(sorted({item.concept for item in items}))
    places = {name: number for number, name in enumerate(concept_names)}
    concepts = torch.tensor([places[item.concept] for item in items])
    empty: tuple[tuple[int, ...], ...] = ((),) * len(items)
    if conditioning == "none":
        nothing = torch.zeros(len(items), 1, dtype=torch.long)
        return Captions(torch.zeros(1, 0), nothing, empty, concepts * 0, concept_names, noisy=False)
    if not any(item.texts for item in items):
        raise UserError("No picture has a caption; add metadata.jsonl, or train with --conditioning none.")
    if conditioning == "classes":
        return Captions(torch.eye(len(places)), concepts[:, None], empty, concepts, concept_names, noisy=False)
    texts: dict[str, int] = {}
    names = [
        [texts.setdefault(template.format(item.texts[0] if item.texts else ""), len(texts)) for template in TEMPLATES]
        for item in items
    ]
    keywords = tuple(tuple(texts.setdefault(text, len(texts)) for text in item.texts[1:]) for item in items)
    vectors = encoder().embed_many(list(texts), tell)
    if "" in texts:  # pictures without a caption are shown as such
        for template in TEMPLATES:
            if template.format("") in texts:
                vectors[texts[template.format("")]] = 0
    return Captions(vectors, torch.tensor(names), keywords, concepts, concept_names, noisy=True)
