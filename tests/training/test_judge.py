"""The judge: trained on real pictures, kept, and asked again."""

from __future__ import annotations

from pathlib import Path

import torch

from chatbot.aigc import captions, dataset, judge
from chatbot.aigc.text import LENGTH
from tests.training.pictures import classes


def test_a_judge_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    data = dataset.prepare(classes(tmp_path / "data"), tmp_path / "out", judge.SIZE, lambda *_: None, print)
    read = captions.read(data.items, "classes", lambda: None, lambda *_: None)  # type: ignore[arg-type, return-value]  # no caption is read
    wide = torch.zeros(len(read.vectors), LENGTH)
    wide[:, : read.vectors.shape[1]] = read.vectors
    read = captions.Captions(wide, read.names, read.keywords, read.concepts, read.concept_names, noisy=False)
    trained = judge.train(data, read, 6, lambda *_: None, batch=16)
    judge.save(trained, tmp_path / "judge.safetensors")
    loaded = judge.load(tmp_path / "judge.safetensors")
    pictures = torch.rand(3, 3, judge.SIZE, judge.SIZE)
    assert torch.allclose(trained(pictures), loaded(pictures), atol=0.02)
    assert torch.allclose(trained.embed_caption(wide), loaded.embed_caption(wide), atol=0.02)
