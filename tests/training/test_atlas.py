"""The atlas at the end of a run's report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chatbot.aigc import atlas
from tests.training.pictures import classes
from tests.training.runs import options, train


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("conditioning", ["classes", "none"])
def test_a_report_shows_the_nearest_clusters_and_a_map_with_captions_and_without(
    tmp_path: Path, conditioning: str
) -> None:
    run = tmp_path / "run"
    train(run, options(classes(tmp_path / "data"), conditioning=conditioning, kimg=0.05))
    page = (run / "report.html").read_text()
    for name in ("nearest", "clusters", "map"):
        assert f'src="atlas/{name}.png"' in page
    assert "of all 18 training pictures" in page
    with Image.open(run / "atlas" / "nearest.png") as sheet:
        assert sheet.size == (7 * 36 + 4, 12 * 36 + 4)
    with Image.open(run / "atlas" / "map.png") as sheet:
        drawn = np.asarray(sheet.convert("RGB"))
    side = drawn.shape[0] // 40
    filled = (drawn.reshape(side, 40, side, 40, 3).astype(int) != 236).any(axis=(1, 3, 4))
    assert filled.sum() == 18  # each in a place of its own


def test_a_report_says_why_there_is_no_atlas_where_a_g_was_not_trained(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, options(classes(tmp_path / "data"), lambda_g=0.0, kimg=0.05))
    assert "--lambda-g 0" in (run / "report.html").read_text()
    assert not (run / "atlas").exists()


def test_an_atlas_in_the_space_of_pixels_reads_the_pictures_themselves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, options(classes(tmp_path / "data", each=1), space="pixels", kimg=0.01))
    assert (run / "atlas" / "map.png").exists()


def test_no_two_pictures_share_a_place_and_neighbours_stay_near() -> None:
    points = np.random.default_rng(0).standard_normal((300, 2)) ** 3  # crowded in the middle
    cells, side = atlas.places(points)
    assert len({tuple(cell) for cell in cells.tolist()}) == 300
    assert cells.min() >= 0
    assert cells.max() < side
    order = np.argsort(points[:, 0])
    assert cells[order[:30], 0].mean() < cells[order[-30:], 0].mean()
    everywhere_alike, _ = atlas.places(np.zeros((5, 2)))
    assert len({tuple(cell) for cell in everywhere_alike.tolist()}) == 5
