"""A run of training: stopped, resumed, and gone wrong."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chatbot import cli
from chatbot.aigc import dataset
from chatbot.aigc.autoencoder import AutoencoderStage
from chatbot.aigc.gan import GanStage
from chatbot.aigc.imagine import Imagination
from chatbot.aigc.options import Options
from chatbot.aigc.text import TextEncoder
from chatbot.aigc.train import Stopped
from chatbot.catalog import DEFAULTS
from chatbot.errors import UserError
from chatbot.fetch import model_file
from chatbot.training import checkpoint
from tests.conftest import REAL_CACHE
from tests.training.pictures import classes
from tests.training.runs import after, last, options, train

Tensors = Callable[[list[int], torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(1)


def encoder() -> TextEncoder:
    """The real one, as it was fetched."""
    return TextEncoder(model_file(DEFAULTS["encoder"], REAL_CACHE / "models").parent)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, dict[str, torch.Tensor]]:
    """What a run with captions is asked for, and how it ends where it is not stopped."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("captioned")
    asked = options(classes(folder / "data"), conditioning="text")
    train(folder / "whole", asked, encoder=encoder)
    return asked, last(folder / "whole")


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


@pytest.mark.parametrize(
    ("told", "missing", "resumed"),
    [
        ("Reading 18 pictures", "data/items.json", False),
        ("Reading 12 captions", "data/captions.safetensors", False),
        ("Encoding the pictures", "data/latents.npy", True),
        ("Preparing the GAN", "best", True),
        ("Drawing the atlas", "atlas", True),
    ],
)
def test_what_is_no_step_can_be_stopped_too_and_what_to_do_then_is_said(
    captioned: tuple[Options, dict[str, torch.Tensor]], tmp_path: Path, told: str, missing: str, resumed: bool
) -> None:
    asked, whole = captioned
    run = tmp_path / "run"
    heard: list[str] = []

    def hear(text: str, fraction: float | None) -> None:
        heard.append(text)

    def stop() -> bool:
        return any(text.startswith(told) for text in heard)

    with pytest.raises(Stopped, match="--resume" if resumed else "the same command begins anew"):
        train(run, asked, stop, tell=hear, encoder=encoder)
    assert heard[-1].startswith(told)
    assert not (run / missing).exists()
    train(run, None if resumed else asked, encoder=encoder)
    parts = last(run)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_data_that_is_no_good_leaves_no_run_in_the_way_of_the_next(tmp_path: Path) -> None:
    data, other, run = classes(tmp_path / "data") / "red", classes(tmp_path / "other"), tmp_path / "run"
    with pytest.raises(UserError, match="No picture has a caption"):
        train(run, options(data))
    with pytest.raises(UserError, match="no run to resume"):
        train(run, None)
    train(run, options(other))
    assert len(dataset.load(run / "data").items) == 18, "not those of the run that there was none of"


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


@pytest.mark.parametrize("kind", [AutoencoderStage, GanStage])
def test_weights_are_spared_gradients_that_are_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[AutoencoderStage | GanStage]
) -> None:
    step, write, failed, saved = kind.step, checkpoint.write, [], []

    def poisoned(stage: AutoencoderStage | GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
        if number != 33 or failed:
            return step(stage, number, progress)  # type: ignore[arg-type]  # it is of its kind
        failed.append(number)
        weight = next((stage.g if isinstance(stage, GanStage) else stage.net).parameters())
        hook = weight.register_hook(lambda gradient: gradient * math.nan)
        try:
            return step(stage, number, progress)  # type: ignore[arg-type]  # it is of its kind
        finally:
            hook.remove()

    def watched(place: Path, tensors: dict[str, torch.Tensor], state: dict[str, object]) -> None:
        saved.append(all(tensor.isfinite().all() for tensor in tensors.values()))
        write(place, tensors, state)

    monkeypatch.setattr(kind, "step", poisoned)
    monkeypatch.setattr(checkpoint, "write", watched)
    monkeypatch.setattr("chatbot.aigc.train._CHECKPOINT", 0.0)
    monkeypatch.setattr("chatbot.aigc.train._FIRST_CHECKPOINT", 0.0)
    said: list[str] = []
    train(tmp_path / "run", options(classes(tmp_path / "data"), kimg=0.5), said=said)
    assert failed == [33]
    assert len(said) == 1
    assert said[0].startswith("The gradients are no numbers any more: back to step 3")
    assert all(saved)


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


class Clock:
    """Stands still but for what is said to take time: pictures `reading` seconds, a step of either stage half a
    second and one, and the first of each ten more, as on a GPU that loads its kernels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reading: float) -> None:
        self.seconds, self.steps, prepare = 0.0, {"autoencoder": 0, "gan": 0}, dataset.prepare

        def read(*given: object) -> object:
            self.seconds += reading
            return prepare(*given)  # type: ignore[arg-type]  # passed on

        monkeypatch.setattr("chatbot.aigc.train.time", SimpleNamespace(monotonic=lambda: self.seconds))
        monkeypatch.setattr(dataset, "prepare", read)
        for kind, takes in ((AutoencoderStage, 0.5), (GanStage, 1.0)):
            monkeypatch.setattr(kind, "step", self._timed(kind, takes))

    def _timed(self, kind: type[AutoencoderStage | GanStage], takes: float) -> object:
        step = kind.step

        def timed(stage: AutoencoderStage | GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
            self.seconds += takes if number else 10.0
            self.steps[kind.name] += 1
            return step(stage, number, progress)  # type: ignore[arg-type]  # it is of its kind

        return timed


def test_minutes_become_a_plan_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, run = Clock(monkeypatch, reading=30.0), tmp_path / "run"
    asked = options(classes(tmp_path / "data"), kimg=None, minutes=2.0)
    with pytest.raises(Stopped):
        train(run, asked, lambda: clock.steps["gan"] == 25)
    plan = json.loads((run / "run.json").read_text())["plan"]
    figures = train(run, None).figures
    assert 114 <= clock.seconds <= 120, "all minutes, but what the report takes"
    assert figures["seconds"] == pytest.approx(clock.seconds, abs=0.5)
    assert 45 <= plan["autoencoder"] <= 55  # a quarter of what is left after reading, and what it was measured by
    assert json.loads((run / "run.json").read_text())["plan"] == plan == clock.steps


def test_where_no_minutes_are_left_to_train_in_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = Clock(monkeypatch, reading=130.0), list[str]()
    train(tmp_path / "run", options(classes(tmp_path / "data"), kimg=None, minutes=2.0), said=said)
    assert said[0].startswith("Of 2 minutes none are left for the autoencoder")
    assert said[1].startswith("Of 2 minutes none are left for the gan")
    assert min(clock.steps.values()) > 8


def test_tensorboard_shows_every_step_once_whatever_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashedError(Exception):
        pass

    def writers() -> int:
        return sum("AsyncWriter" in type(one).__name__ for one in threading.enumerate())

    run, step, taken, before = tmp_path / "run", GanStage.step, list[int](), writers()

    def crashes(stage: GanStage, number: int, progress: float) -> dict[str, torch.Tensor]:
        taken.append(number)
        if number == 50 and len(taken) < 60:
            raise CrashedError
        return step(stage, number, progress)

    monkeypatch.setattr(GanStage, "step", crashes)
    monkeypatch.setattr("chatbot.aigc.train._CHECKPOINT", 1e9)
    monkeypatch.setattr("chatbot.aigc.train._FIRST_CHECKPOINT", 1e9)
    with pytest.raises(Stopped):
        train(run, options(classes(tmp_path / "data"), kimg=0.5), lambda: len(taken) == 30)
    with pytest.raises(CrashedError):
        train(run, None)
    assert writers() == before, "nothing waits to be written"

    def shown(tag: str) -> list[int]:
        board = EventAccumulator(str(run / "tensorboard"), {"scalars": 0})
        board.Reload()
        return [event.step for event in board.Scalars(tag)]

    assert shown("autoencoder/error") == [20, 40, 60, 63]
    assert shown("gan/d") == [64 + step for step in (20, 40)]
    train(run, None)
    assert shown("autoencoder/error") == [20, 40, 60, 63]
    assert shown("gan/d") == [64 + step for step in (20, 40, 60, 63)]
    assert shown("gan/distance") == sorted(set(shown("gan/distance")))


def test_a_checkpoint_cut_in_the_middle_of_writing_is_not_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, {"step": 1})
    (tmp_path / "00000002.partial").mkdir()
    (tmp_path / "00000002.partial" / checkpoint.TENSORS).write_bytes(b"cut")
    assert checkpoint.numbers(tmp_path) == [1]
    checkpoint.save(tmp_path, 2, {"a": torch.zeros(2)}, {"step": 2})
    assert checkpoint.load(tmp_path / "00000002")[1] == {"step": 2}


def test_what_stood_there_is_read_where_a_kill_came_between_moving_it_away_and_replacing_it(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"

    def cut(place: Path) -> None:
        place.rename(place.with_name(place.name + ".old"))

    for number in (1, 2):
        checkpoint.save(folder, number, {"a": torch.ones(2)}, {"step": number})
    cut(folder / "00000002")
    assert checkpoint.numbers(folder) == [1, 2]
    assert checkpoint.load(folder / "00000002")[1] == {"step": 2}
    checkpoint.drop_after(folder, 1)
    assert checkpoint.numbers(folder) == [1]
    cut(folder / "00000001")
    checkpoint.write(folder / "00000001", {"a": torch.zeros(2)}, {"step": 1})
    assert [path.name for path in folder.iterdir()] == ["00000001"]
    assert not checkpoint.load(folder / "00000001")[0]["a"].any()

    asked, run = options(classes(tmp_path / "data")), tmp_path / "run"
    train(tmp_path / "whole", asked)
    with pytest.raises(Stopped):
        train(run, asked, lambda: (run / "best").exists())
    cut(run / "best")
    cut(run / "checkpoints" / f"{checkpoint.numbers(run / 'checkpoints')[-1]:08d}")
    train(run, None)
    one, other = last(run), last(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "aigc", "--out", "run"), "--seed 20000000000 makes no sense; it is from 0 to"),
        (("retrain", "aigc"), "--seed 20000000000 makes no sense; it is from 0 to"),
        (("retrain", "gpt"), "--seed 20000000000 makes no sense; it is from 0 to"),
    ],
)
def test_a_seed_that_is_too_large_is_refused_before_anything_is_prepared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = classes(tmp_path / "data")
    assert cli.main([*words, "--data", str(data), "--seed", "20000000000"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _too_much(stage: AutoencoderStage, number: int, progress: float) -> dict[str, torch.Tensor]:
    return {"error": torch.empty(2**50)}


def _too_much_for_the_gpu(stage: AutoencoderStage, number: int, progress: float) -> dict[str, torch.Tensor]:
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("step", [_too_much, _too_much_for_the_gpu])
def test_too_little_memory_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: object
) -> None:
    monkeypatch.setattr(AutoencoderStage, "step", step)
    words = ["train", "aigc", "--data", str(classes(tmp_path / "data")), "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--preset", "cpu-32", "--conditioning", "classes", "--kimg", "0.1"]) == 2
    said = capsys.readouterr().err
    assert "too little memory for 32 pictures a step at 32 pixels; free some, or begin anew with a smaller" in said
    assert "bug" not in said


def test_more_processes_than_gpus_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    words = ["train", "aigc", "--data", str(classes(tmp_path / "data")), "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--preset", "cpu-32", "--kimg", "0.1"]) == 2
    assert "The GPUs here are for 1 of 2 processes; take --nproc-per-node 1." in capsys.readouterr().err


def _torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_two_processes_hold_the_same_and_go_back_together(tmp_path: Path) -> None:
    done = _torchrun("tests.training.ranks", str(classes(tmp_path / "data")), str(tmp_path / "run"), str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["held"].keys() == {"autoencoder", "gan"}
    assert first["held"] == second["held"]
    assert second["times"]["read"] < first["times"]["written"], "it was written again while it was being read"


def test_two_processes_under_torchrun_make_one_run_and_one_candidate(tmp_path: Path) -> None:
    data, run = classes(tmp_path / "data"), tmp_path / "run"
    words = ["--kimg", "0.05", "--preset", "cpu-32", "--batch", "8", "--conditioning", "classes"]
    done = _torchrun("chatbot", "train", "aigc", "--data", str(data), "--out", str(run), *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("is a candidate") == 1
    assert all(tensor.isfinite().all() for tensor in last(run).values())
