"""Judging a picture model: on real pictures, by a judge that saw no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chatbot.aigc import emoji, evaluate
from chatbot.catalog import DEFAULTS
from chatbot.fetch import model_file
from tests.conftest import REAL_CACHE

THINGS = ("cat", "dog", "sun", "heart", "apple", "tree", "fish", "bird", "house", "car")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty drawings, of ten things in four colours each, with captions."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = []
    for place, thing in enumerate(THINGS):
        for style in ("noto", "twemoji", "fluent", "other"):
            colour = random.integers(0, 255, (8, 8, 4), dtype=np.uint8)
            colour[..., 3] = 255
            name = f"{style}-{place}.png"
            Image.fromarray(colour, "RGBA").resize((64, 64)).save(folder / name)
            rows.append({"file_name": name, "text": [thing, f"a {thing}"], "style": style, "concept": thing})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("named", [True, False], ids=["by named pictures", "by those in the cache"])
def test_the_shipped_model_is_given_every_figure_with_its_floor(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "cache"))  # a judge of these pictures is of no use to anyone
    monkeypatch.setattr(evaluate, "JUDGE_STEPS", 2)
    weights = model_file(DEFAULTS["aigc"], REAL_CACHE / "models").parent
    encoder = model_file(DEFAULTS["encoder"], REAL_CACHE / "models").parent
    sheet = tmp_path / "sheet.png"
    said: list[str] = []
    if not named:
        shutil.copytree(pictures, tmp_path / "cache" / "pictures" / emoji.EDITION)
    data = pictures if named else None
    figures = evaluate.evaluate(weights, encoder, "stickers@2", data, sheet, lambda *_: None, said.append)
    assert any("pictures of the default model" in line for line in said) is not named
    assert figures["pictures"] == 40
    for name in ("KID-like (judge)", "FID-like (judge)", "precision", "recall", "coverage"):
        assert np.isfinite(figures[name]), name
    assert figures["KID-like (judge)"] > figures["KID-like (judge), floor"]  # noise is nothing like stickers
    assert 0 <= figures["prompts found among 20"] <= 1
    assert "IS" not in figures  # there is no classifier
    with Image.open(sheet) as image:
        assert image.width > 640
