"""A run of training: stopped, resumed, and gone wrong."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from chatbot.aigc.autoencoder import AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.options import Options
from chatbot.aigc.train import Stopped
from chatbot.errors import UserError
from chatbot.training import checkpoint
from tests.training.pictures import classes
from tests.training.runs import after, last, options, train

Tensors = Callable[[list[int], torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("space", "kimg", "steps"), [("latent", 0.12, 6), ("pixels", 0.05, 2)])
def test_a_run_that_was_stopped_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, space: str, kimg: float, steps: int
) -> None:
    data = classes(tmp_path / "data")
    train(tmp_path / "whole", options(data, space=space, kimg=kimg))
    asked: Options | None = options(data, space=space, kimg=kimg)
    stops = 0
    while True:
        try:
            train(tmp_path / "parts", asked, after(steps))
            break
        except Stopped:
            stops += 1
            asked = None
    assert stops >= 2
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "stats.jsonl").read_text().splitlines()]
    steps_seen = [(row["stage"], row["step"], "snapshot" in row) for row in rows]
    assert len(steps_seen) == len(set(steps_seen))


def test_what_a_run_leaves_makes_pictures(tmp_path: Path) -> None:
    outcome = train(tmp_path / "run", options(classes(tmp_path / "data")))
    assert (tmp_path / "run" / "report.html").exists()
    assert list((tmp_path / "run" / "grids").glob("gan-*.png"))
    imagination = Imagination(outcome.model, tmp_path, "discs@1")
    plan = imagination.plan("a red disc", 2, seed=3)
    first = [picture.png for picture in imagination.pictures(plan)]
    assert first == [picture.png for picture in imagination.pictures(imagination.plan("a red disc", 2, seed=3))]
    [notice] = imagination.plan("a cat").notices
    assert "knows classes only" in notice
    assert imagination.plan("a cat").vectors.equal(imagination.plan("a cat").vectors)


def test_losses_that_are_no_numbers_are_rolled_back_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, failed = GanStage.step, []

    def poisoned(stage: GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
        stats = step(stage, number, progress)
        if number == 39 and not failed:
            failed.append(number)
            with torch.no_grad():
                stage.g.out.bias.fill_(math.nan)
            return {name: value * math.nan for name, value in stats.items()}
        return stats

    monkeypatch.setattr(GanStage, "step", poisoned)
    monkeypatch.setattr("chatbot.aigc.train._CHECKPOINT", 0.0)
    monkeypatch.setattr("chatbot.aigc.train._FIRST_CHECKPOINT", 0.0)
    said: list[str] = []
    outcome = train(tmp_path / "run", options(classes(tmp_path / "data"), kimg=0.5), said=said)
    assert failed == [39]
    assert len(said) == 1
    assert re.fullmatch(
        r"The losses are no numbers any more: back to step \d+, with half the learning rate\.", said[0]
    )
    assert all(math.isfinite(value) for value in outcome.figures.values())
    assert all(tensor.isfinite().all() for tensor in last(tmp_path / "run").values())


def _picture(stage: GanStage) -> tuple[int, int, int]:
    return stage.shape.depth, stage.shape.size, stage.shape.size


def _saturate(stage: GanStage) -> Tensors:
    stage.gap = 100.0
    return lambda numbers, codes: torch.randn(len(numbers), *_picture(stage))


def _all_alike(stage: GanStage) -> Tensors:
    return lambda numbers, codes: torch.ones(len(numbers), *_picture(stage))


def _each_alike(stage: GanStage) -> Tensors:
    return lambda numbers, codes: torch.stack([torch.full(_picture(stage), float(n)) for n in numbers])


@pytest.mark.parametrize(
    ("collapse", "told"),
    [
        (_saturate, "it is saturated"),
        (_all_alike, "All captions give the same picture"),
        (_each_alike, "One caption gives the same picture every time"),
    ],
)
def test_a_collapse_is_said_and_what_is_rolled_back_to_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapse: Callable[[GanStage], Tensors], told: str
) -> None:
    step, asked = GanStage.step, options(classes(tmp_path / "data"), kimg=0.5)
    run, collapsed = tmp_path / "run", []

    def collapses(stage: GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
        stats = step(stage, number, progress)
        if number == 39 and not collapsed:
            collapsed.append(number)
            monkeypatch.setattr(stage, "sample", collapse(stage))
            monkeypatch.setattr("chatbot.aigc.snapshot._WARM", 0)
        elif said:
            monkeypatch.undo()
        return stats

    def stop() -> bool:
        return bool(said)

    monkeypatch.setattr(GanStage, "step", collapses)
    monkeypatch.setattr("chatbot.aigc.train._SNAPSHOTS", 1000)
    said: list[str] = []
    with pytest.raises(Stopped):
        train(run, asked, stop, said)
    assert len(said) == 1
    assert told in said[0]
    folder = run / "checkpoints"
    tensors, state = checkpoint.load(folder / f"{checkpoint.numbers(folder)[0]:08d}")
    assert (state["stage"], state["rollbacks"]) == ("gan", 1)
    assert float(tensors["gap"]) < 30
    assert train(run, None).figures["kimg"] == pytest.approx(0.5, abs=0.01)


def test_a_plain_gan_without_assistants_trains_too(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    train(tmp_path / "run", options(data, lambda_d=0.0, lambda_g=0.0, loss="bce", conditioning="none"))


def test_a_run_is_not_begun_over_another_and_resuming_needs_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to resume"):
        train(tmp_path / "run", None)
    asked = options(classes(tmp_path / "data"))
    train(tmp_path / "run", asked)
    with pytest.raises(UserError, match="--resume"):
        train(tmp_path / "run", asked)


def test_what_happened_before_the_first_checkpoint_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def killed(stage: GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
        raise KilledError

    asked = options(classes(tmp_path / "data"))
    with monkeypatch.context() as patched:
        patched.setattr(AutoencoderStage, "step", killed)
        with pytest.raises(KilledError):
            train(tmp_path / "run", asked)
    row = {"stage": "autoencoder", "step": 20, "kimg": 0.1, "images_per_s": 1.0, "error": 9.0}
    (tmp_path / "run" / "stats.jsonl").write_text(json.dumps(row) + "\n")
    train(tmp_path / "run", None)
    rows = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert row not in rows
    assert rows


def test_minutes_become_a_plan_that_is_kept(tmp_path: Path) -> None:
    asked = options(classes(tmp_path / "data"), kimg=None, minutes=0.1)
    train(tmp_path / "run", asked)
    plan = json.loads((tmp_path / "run" / "run.json").read_text())["plan"]
    assert plan["autoencoder"] > 3
    assert plan["gan"] > 3


def test_a_checkpoint_cut_in_the_middle_of_writing_is_not_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, {"step": 1})
    (tmp_path / "00000002.partial").mkdir()
    (tmp_path / "00000002.partial" / checkpoint.TENSORS).write_bytes(b"cut")
    assert checkpoint.numbers(tmp_path) == [1]
    checkpoint.save(tmp_path, 2, {"a": torch.zeros(2)}, {"step": 2})
    assert checkpoint.load(tmp_path / "00000002")[1] == {"step": 2}


def test_two_processes_under_torchrun_make_one_run_and_one_candidate(tmp_path: Path) -> None:
    data, run = classes(tmp_path / "data"), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "chatbot", "train", "aigc", "--data", str(data), "--out", str(run), "--kimg", "0.05"]
    command += ["--preset", "cpu-32", "--batch", "8", "--conditioning", "classes"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("is a candidate") == 1
    assert all(tensor.isfinite().all() for tensor in last(run).values())
