"""Judging a picture model: on real pictures, by a judge that saw no others."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from chatbot.aigc import captions, distances, emoji, evaluate, judge, model, networks
from chatbot.aigc.dataset import Dataset, Item
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.options import network_shape
from chatbot.aigc.pictures import on_background, vary
from chatbot.aigc.text import LENGTH, TextEncoder
from chatbot.catalog import DEFAULTS
from chatbot.errors import UserError
from chatbot.fetch import model_file
from tests.conftest import REAL_CACHE
from tests.training.pictures import classes
from tests.training.runs import options, train

WEIGHTS = model_file(DEFAULTS["aigc"], REAL_CACHE / "models").parent
ENCODER = model_file(DEFAULTS["encoder"], REAL_CACHE / "models").parent
THINGS = ("cat", "dog", "sun", "heart", "apple", "tree", "fish", "bird", "house", "car")


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge of a moment, which is of no use to anyone else."""
    monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate, "JUDGE_STEPS", 2)


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
    sheet, nearest = tmp_path / "sheet.png", tmp_path / "nearest.png"
    said: list[str] = []
    if not named:
        shutil.copytree(pictures, tmp_path / "cache" / "pictures" / emoji.EDITION)
    data = pictures if named else None
    figures = evaluate.evaluate(
        WEIGHTS, ENCODER, "stickers@2", data, sheet, lambda *_: None, said.append, nearest=nearest
    )
    assert any("pictures of the default model" in line for line in said) is not named
    assert figures["pictures"] == 40
    for name in ("KID-like (judge)", "FID-like (judge)", "precision (judge)", "recall (judge)", "coverage (judge)"):
        assert np.isfinite(figures[name]), name
    assert figures["KID-like (judge)"] > figures["KID-like (judge), floor"]  # noise is nothing like stickers
    assert 0 <= figures["prompts found among 10"] <= 1  # there are no twenty
    assert 0 <= figures["R@1 of 10, seen"] <= figures["R@5 of 10, seen"] <= 1
    assert "Inception" in figures or "IS (Inception)" in figures
    for path in (sheet, nearest):
        with Image.open(path) as image:
            assert image.width > 640


@pytest.mark.parametrize("count", [2, 5, 13])
def test_too_few_pictures_are_said_before_a_judge_is_trained(pictures: Path, tmp_path: Path, count: int) -> None:
    told: list[str] = []
    with pytest.raises(UserError, match=rf"by {count} of the pictures .*; 14 are the least"):
        evaluate.evaluate(
            WEIGHTS, ENCODER, "m", _first(pictures, count), None, lambda text, _: told.append(text), told.append
        )
    assert not any("judge" in text for text in told)


def test_the_fewest_pictures_are_enough(pictures: Path) -> None:
    data = _first(pictures, distances.FEWEST)
    figures = evaluate.evaluate(WEIGHTS, ENCODER, "m", data, None, lambda *_: None, print)
    assert all(np.isfinite(value) for value in figures.values() if not isinstance(value, str))


@pytest.mark.parametrize("conditioning", ["classes", "none"])
@pytest.mark.parametrize("captioned", [True, False])
def test_a_model_that_reads_no_captions_is_judged_by_all_but_those(
    tmp_path: Path, conditioning: str, captioned: bool
) -> None:
    data, said = classes(tmp_path / "data", 8), list[str]()
    train(tmp_path / "run", options(data, conditioning=conditioning, kimg=0.05))
    if not captioned:
        data = tmp_path / "plain"
        data.mkdir()
        for path in (tmp_path / "data").rglob("*.png"):
            path.rename(data / f"{path.parent.name}-{path.name}")

    def look() -> dict[str, object]:
        return evaluate.evaluate(
            tmp_path / "run" / "model", ENCODER, "mine@1", data, tmp_path / "sheet.png", lambda *_: None, said.append
        )

    if conditioning == "classes" and not captioned:
        with pytest.raises(UserError, match="mine@1 can be judged by 0 of the pictures"):
            look()
        return
    figures = look()
    assert len(said) == 1
    assert "left out" in said[0]
    assert {"KID-like (judge)", "FID-like (judge)", "coverage (judge)"} <= set(figures)
    assert any(name.startswith("diversity") for name in figures)
    assert any(name.startswith("R@") for name in figures) is (conditioning == "classes")
    assert not any("prompts" in name or "R@5" in name for name in figures)  # of three classes, five are all
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 300


def test_a_caption_is_looked_for_among_a_hundred_though_its_split_has_fewer() -> None:
    """The same picture for all: eight captions that are compared with each other alone have five among five."""
    splits = ["concept"] * 8 + ["train"] * 112
    items = tuple(Item(f"{n}.png", (f"thing {n}",), "", f"thing {n}", split) for n, split in enumerate(splits))
    real = Dataset(np.full((120, 64, 64, 3), 90, np.uint8), items, "")
    read = captions.read(items, "text", lambda: TextEncoder(ENCODER), lambda *_: None)
    torch.manual_seed(0)
    measured = evaluate.Measurement(
        Imagination(WEIGHTS, ENCODER, "m"), real, read, judge.Judge().eval(), lambda *_: None
    )
    numbers = real.split("concept")
    with torch.inference_mode():
        figures = measured._retrieval(measured.images(numbers), numbers, "unseen concept")
    assert figures["R@5 of 100, unseen concept"] < 5 / 8
    assert "R@1 of 100, unseen concept" in figures


def test_a_picture_is_not_compared_with_what_was_made_for_its_own_caption() -> None:
    real = np.random.default_rng(0).normal(size=(40, 64))
    found = distances.coverage(real, real.copy())
    assert found["precision"] < 1  # of pairs of what is the same, all would be 1


def test_another_recipe_makes_another_judge() -> None:
    recipe = evaluate.recipe()
    for part in (judge.train, vary, on_background, captions.Captions.draw, TextEncoder):
        assert inspect.getsource(part) in recipe


@pytest.fixture
def random_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inception as torch-fidelity finds it where it was fetched before, with weights of chance."""

    class Unread(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity is untyped
        def load_state_dict(self, *_: object) -> None:
            return None

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / Path(URL_INCEPTION_V3).name
    place.parent.mkdir(parents=True)
    torch.save({}, place)
    torch.manual_seed(0)
    net = Unread("inception-v3-compat", ["2048"])
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight)
    torch.save(net.state_dict(), place)


@pytest.mark.usefixtures("random_inception")
def test_where_inception_is_there_its_distances_and_its_score_are_given() -> None:
    random = np.random.default_rng(0)
    real, made = (
        [Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8) // dim) for _ in range(10)]
        for dim in (1, 3)
    )
    figures = evaluate.inception(real, made)
    assert figures["FID (Inception)"] > figures["FID (Inception), floor"]
    assert figures["KID (Inception)"] > figures["KID (Inception), floor"]
    assert figures["IS (Inception)"] >= 1
    assert figures["IS (Inception), real"] >= 1


def test_the_score_is_the_number_of_classes_that_are_surely_seen() -> None:
    assert distances.inception_score(np.eye(4)[np.arange(400) % 4] * 100) == pytest.approx(4, rel=0.05)
    assert distances.inception_score(np.zeros((400, 4))) == pytest.approx(1)


def test_a_model_without_memory_does_not_pretend_to_know_a_prompt(tmp_path: Path) -> None:
    asked = options(tmp_path, conditioning="text", memory=False, space="pixels")
    shape = network_shape(asked, 4, 1, LENGTH, 0)
    state = {f"ema/{name}": value for name, value in networks.Generator(shape).state_dict().items()}
    data = Dataset(np.zeros((1, 32, 32, 4), np.uint8), (Item("a.png", ("a",), "", "a"),), "")
    model.export(tmp_path / "model", shape, state, data, [], asked, {})
    understood = model.PictureModel(tmp_path / "model").understand(torch.ones(LENGTH), 0)
    assert np.isnan(understood.likeness)


def _first(folder: Path, count: int) -> Path:
    rows = (folder / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text("".join(rows[:count]))
    return folder
