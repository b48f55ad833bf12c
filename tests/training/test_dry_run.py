"""What a run would cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from chatbot.aigc import dry_run
from chatbot.aigc.options import from_preset
from chatbot.aigc.text import TextEncoder
from chatbot.aigc.train import Training
from chatbot.catalog import DEFAULTS
from chatbot.fetch import model_file
from tests.conftest import REAL_CACHE
from tests.training.pictures import classes
from tests.training.runs import SMALL, last

ENCODER = model_file(DEFAULTS["encoder"], REAL_CACHE / "models").parent
BUFFERS = ("g/memory.keys", "autoencoder/mean", "autoencoder/deviation")


def silent(text: str, fraction: float | None = None) -> None:
    """Whatever is told."""


def drawn(folder: Path, count: int, row: Callable[[int], dict[str, object]]) -> Path:
    """As many pictures, half transparent, and what `row` says of each."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGBA", (8, 8), (number % 256, 90, 200, 128)).save(folder / f"{number}.png")
    rows = ({"file_name": f"{number}.png", **row(number)} for number in range(count))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


@pytest.mark.parametrize("loss", ["r3gan", "projected"])
def test_pictures_of_so_many_concepts_that_some_are_held_out_are_priced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(dry_run, "_SECONDS", 0.01)
    data = classes(tmp_path / "data", each=22)
    files = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
    rows = [{"file_name": file, "text": f"thing {n}"} for n, file in enumerate(files * 8)]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = from_preset("cpu-32", data=str(data), kimg=1.0, batch=8, shape=SMALL, loss=loss)
    lines = dry_run.estimate(options, silent, silent)
    assert lines[0].startswith("528 pictures, 32 px")
    assert any(line.startswith("1 kimg take about") for line in lines)
    assert any("heads" in line for line in lines) is (loss == "projected")


@pytest.mark.parametrize(("conditioning", "space"), [("text", "latent"), ("classes", "pixels"), ("none", "latent")])
def test_the_parameters_said_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conditioning: str, space: str
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(dry_run, "_SECONDS", 0.01)
    # style by style, as folders are read: the first alone has more pictures than are looked at
    data = drawn(
        tmp_path / "data",
        390,
        lambda n: {"text": [f"thing {n % 130}", "thing"], "style": ["flat", "round", "line"][n // 130]},
    )
    options = from_preset(
        "cpu-32", data=str(data), kimg=0.02, batch=8, conditioning=conditioning, space=space,
        shape=SMALL | {"memory": 800},
    )  # fmt: skip
    lines = dry_run.estimate(options, silent, silent)
    said = {line.split(":")[0]: line for line in lines}
    Training(
        tmp_path / "run", options, encoder=lambda: TextEncoder(ENCODER), stopping=lambda: False, tell=silent,
        complain=silent,
    ).go()  # fmt: skip
    trained: Counter[str] = Counter()
    for name, tensor in last(tmp_path / "run").items():
        trained[name.split("/")[0]] += tensor.numel() * (name not in BUFFERS)
    nets = ", ".join(f"{name} {trained[name] / 1e6:.1f}" for name in ("g", "d", "a_d", "a_g"))
    assert said["parameters in millions"] == f"parameters in millions: {nets}"
    if space == "latent":
        assert f"autoencoder {trained['autoencoder'] / 1e6:.1f} M parameters" in lines


def test_captions_are_looked_for_at_all_pictures_and_pictures_are_looked_at_all_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(dry_run, "_SECONDS", 0.01)
    data = drawn(tmp_path / "data", 130, lambda n: {"text": "thing"} if n == 129 else {})
    for number in range(65):
        (data / f"{number}.png").write_text("no picture")
    options = from_preset("cpu-32", data=str(data), kimg=1.0, batch=8, shape=SMALL)
    said: list[str] = []
    assert dry_run.estimate(options, silent, said.append)[0].startswith("130 pictures")
    assert said[-1] == "Passed over 32 pictures in all."


def test_a_run_that_would_diverge_is_priced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(dry_run, "_SECONDS", 0.5)
    data = drawn(tmp_path / "data", 8, lambda n: {"text": "thing"})
    options = from_preset("cpu-32", data=str(data), kimg=1.0, batch=8, rate=1e8, space="pixels", shape=SMALL)
    assert dry_run.estimate(options, silent, silent)[-1].startswith("1 kimg take about")
