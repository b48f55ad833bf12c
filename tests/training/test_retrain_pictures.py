"""Training a picture model further, and letting only what is better draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from chatbot import cli
from chatbot.aigc import captions as captions_of
from chatbot.aigc import dataset
from chatbot.aigc.further import Begun, options_for
from chatbot.aigc.gan import GanStage
from chatbot.aigc.jury import Looked, kid_difference, retrieval_difference
from chatbot.aigc.model import TRAINING, PictureModel
from chatbot.aigc.networks import Generator
from chatbot.errors import UserError
from chatbot.retrain.aigc import Ground, check_resumed, decide
from storage.versions import Version
from tests.training.pictures import classes
from tests.training.runs import options, train


def looked(seed: int, *, off: float = 0.0, found: float = 0.5, apart: float = 1.0) -> Looked:
    """A model whose pictures lie `off` the real ones."""
    chance = np.random.default_rng(seed)
    real = np.random.default_rng(0).normal(size=(200, 16))
    made = real + chance.normal(size=real.shape) * 0.1 + off
    hits = np.random.default_rng(1).random(200) < found
    return Looked("m", made, real, hits, np.full(9, apart), Image.new("RGB", (1, 1)))


def test_only_what_is_better_at_one_and_hardly_worse_at_the_rest_passes() -> None:
    now = looked(1, off=0.5)
    assert kid_difference(looked(2), now).high < 0
    assert decide(looked(2), now).promote
    assert retrieval_difference(looked(1, off=0.5, found=0.8), now).low > 0
    assert decide(looked(1, off=0.5, found=0.8), now).promote
    same = decide(now, now)
    assert not same.promote
    assert same.reasons[0].startswith("better at one: KID-like +0.000")
    for worse in (looked(2, found=0.3), looked(2, apart=0.8), looked(1, off=1.0, found=0.8)):
        verdict = decide(worse, now)
        assert not verdict.promote
        assert verdict.checks[0].passed, "it is better at one, and too much worse at another"


def test_a_run_begins_with_the_pictures_of_the_model_it_goes_on_from(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    outcome = train(tmp_path / "first", options(data))
    assert (outcome.model / TRAINING).exists()
    base = PictureModel(outcome.model)
    asked = options_for(outcome.model, data=str(data), kimg=0.05)
    assert asked.rate == options(data).rate / 2
    prepared = dataset.load(tmp_path / "first" / "data")
    read = captions_of.read(prepared.items, "classes", lambda: pytest.fail("no caption is read"), lambda *_: None)
    begun = Begun(outcome.model, prepared.styles)
    assert begun.has_assistants
    latents = np.load(tmp_path / "first" / "data" / "latents.npy")
    stage = GanStage(asked, base.shape, prepared, read, latents, torch.device("cpu"), begun=begun)
    numbers = list(range(len(prepared.items)))
    codes = torch.zeros(len(numbers), base.shape.code)
    with torch.inference_mode():
        made = base.decode(stage.sample(numbers, codes))
        known = base._generator(codes, read.name_vectors(numbers), stage.styles[numbers])
    assert torch.allclose(made, base.decode(known), atol=0.05)
    second = train(tmp_path / "second", asked)
    assert options_for(second.model, data=str(data), kimg=0.05).rate == asked.rate, "it is halved once"
    assert str(tmp_path) not in (second.model / "model.json").read_text(), "a model says nothing of where it was made"
    with pytest.raises(UserError, match="another width"):
        train(tmp_path / "third", options(data, base=str(outcome.model), shape={**asked.shape, "width": 64}))


def test_where_d_is_new_g_waits_for_it(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    outcome = train(tmp_path / "first", options(data))
    (outcome.model / TRAINING).unlink()
    base = PictureModel(outcome.model)
    prepared = dataset.load(tmp_path / "first" / "data")
    read = captions_of.read(prepared.items, "classes", lambda: pytest.fail("no caption is read"), lambda *_: None)
    latents = np.load(tmp_path / "first" / "data" / "latents.npy")
    begun = Begun(outcome.model, prepared.styles)
    asked = options_for(outcome.model, data=str(data), kimg=0.05)
    stage = GanStage(asked, base.shape, prepared, read, latents, torch.device("cpu"), begun=begun)
    before = [parameter.clone() for parameter in stage.g.parameters()]
    stage.step(0, 0.0)
    assert all(torch.equal(*pair) for pair in zip(before, stage.g.parameters(), strict=True))
    stage.step(1, 0.5)
    assert not all(torch.equal(*pair) for pair in zip(before, stage.g.parameters(), strict=True))


def test_what_the_model_knows_beside_the_new_pictures_is_kept(tmp_path: Path) -> None:
    outcome = train(tmp_path / "first", options(classes(tmp_path / "data")))
    known = PictureModel(outcome.model)
    begun = Begun(outcome.model, ["", "new"])
    assert begun.others(["red"]) == [name for name in known.concepts if name != "red"]
    shape = replace(known.shape, styles=2, concepts=3)
    g = Generator(shape)
    drawings = torch.zeros(2, shape.depth, shape.size, shape.size)
    keys = torch.nn.functional.normalize(torch.ones(1, shape.text), dim=1)
    begun.generator(g, ["red"], keys, drawings, torch.zeros(2, dtype=torch.long), torch.tensor([0, 1]))
    old = known.generator_state()["memory.values"]
    assert g.memory is not None
    for place, name in enumerate(["red", *begun.others(["red"])]):
        value = old[known.concepts.index(name)]
        assert torch.equal(g.memory.values[place, 0], value[0])
        assert torch.allclose(g.memory.values[place, 1], value.mean(0)), "a new style begins with the mean of others"


def test_a_run_is_gone_on_with_only_where_nothing_changed(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    outcome = train(tmp_path / "first", options(data))
    asked = options_for(outcome.model, data=str(data), kimg=0.05)
    ground = Ground(Version("aigc", "first", "1", str(outcome.model), "c", "0"), outcome.model)
    run = tmp_path / "second"
    check_resumed(run, asked, ground, [])  # before the pictures were prepared
    train(run, asked)
    items = dataset.load(run / "data").items
    check_resumed(run, asked, ground, items)
    with pytest.raises(UserError, match="The pictures in .* are others"):
        check_resumed(run, asked, ground, items[1:])
    with pytest.raises(UserError, match="does not begin with first@1, which is in use"):
        check_resumed(run, asked, replace(ground, folder=tmp_path), items)


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Fourteen hundred discs and squares with captions, of which some fifty are held out."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    chance = np.random.default_rng(0)
    rows = []
    for number in range(1400):
        image = Image.new("RGBA", (64, 64))
        box = (4, 4, *(int(side) for side in chance.integers(30, 60, 2)))
        draw, shape = ImageDraw.Draw(image), ("disc", "square")[number % 2]
        (draw.ellipse if shape == "disc" else draw.rectangle)(box, fill=tuple(chance.integers(0, 255, 3)))
        image.save(folder / f"{number}.png")
        name = f"{shape} {number // 4}"
        rows.append({"file_name": f"{number}.png", "text": [name], "style": "noto", "concept": name})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_command_trains_the_model_in_use_further_and_judges_it(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chatbot.aigc.jury.judge_of", _quick_judge)
    monkeypatch.setattr("chatbot.aigc.jury._CAPTIONS", 4)
    run = tmp_path / "run"
    words = ["retrain", "aigc", "--data", str(drawings), "--out", str(run), "--minutes", "0.1"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert "In use: stickers@2; judged on" in said.err
    assert "KID-like of held-out pictures: " in said.out
    assert "retrained-pictures@1" in said.out
    for name in ("retrain.html", "retrain.md", "before.png", "after.png", "report.html"):
        assert (run / name).exists(), name
    assert "retrained-pictures@1" in (run / "retrain.md").read_text().split("| kid_like")[0].splitlines()[-2]
    assert not (run / "model").exists()
    assert cli.main(["models", "list", "--json"]) == 0
    [made] = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "retrained-pictures"]
    assert made["parent"] == "stickers@2"
    assert made["settings"]["trained"]["minutes"] == 0.1
    assert made["figures"]["before"].keys() == {"kid_like", "retrieval", "diversity"}
    assert made["figures"]["verdict"]["checks"][0]["what"] == "better at one"


def _quick_judge(real: dataset.Dataset, read: captions_of.Captions, tell: object) -> object:
    from chatbot.aigc import judge

    return judge.train(real, read, 2, lambda *_: None)


def test_too_few_pictures_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["retrain", "aigc", "--data", str(classes(tmp_path / "data"))]) == 2
    assert "0 are held out; 40 are needed" in capsys.readouterr().err
    assert cli.main(["retrain", "aigc"]) == 2
    assert "Say which pictures to learn from" in capsys.readouterr().err


def test_pictures_of_another_kind_are_refused_before_anything_is_trained(
    drawings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in drawings.glob("*.png"):
        with Image.open(file) as image:
            image.convert("RGB").save(file)
    assert cli.main(["retrain", "aigc", "--data", str(drawings)]) == 2
    assert "are opaque, and those of the model in use are transparent" in capsys.readouterr().err
