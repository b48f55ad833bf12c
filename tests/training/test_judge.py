"""The judge: trained on real pictures, kept, and asked again."""

from __future__ import annotations

from pathlib import Path

import torch

from chatbot.aigc import captions, dataset, judge
from chatbot.aigc.pictures import as_batch, on_background, vary
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


def test_pictures_without_captions_are_judged_by_how_they_look(tmp_path: Path) -> None:
    """Of two views, that of the same picture is the nearer one."""
    data = dataset.prepare(classes(tmp_path / "data", 1), tmp_path / "out", judge.SIZE, lambda *_: None, print)
    read = captions.read(data.items, "none", lambda: None, lambda *_: None)  # type: ignore[arg-type, return-value]  # no caption is read
    trained = judge.train(data, read, 15, lambda *_: None, batch=12)
    pictures = on_background(as_batch(data.pictures, [0, 1, 2], torch.device("cpu")))
    moved = vary(as_batch(data.pictures, [0, 1, 2], torch.device("cpu")), torch.Generator().manual_seed(0))
    likeness = trained(pictures) @ trained(on_background(moved)).T
    assert likeness.argmax(1).tolist() == [0, 1, 2]
