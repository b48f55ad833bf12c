"""The commands of the picture model, as a person types them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from chatbot.training import checkpoint
from tests.conftest import REAL_CACHE, Chatbot
from tests.training.pictures import classes
from tests.training.runs import last

SMALL = ("--preset", "cpu-32", "--batch", "8", "--conditioning", "classes")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classes(tmp_path_factory.mktemp("pictures") / "discs")


def test_train_promote_imagine(chatbot: Chatbot, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "discs"
    done = chatbot("train", "aigc", "--data", str(data), "--out", str(run), "--kimg", "0.05", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "discs@1 is a candidate; `chatbot models promote discs@1` puts it to use.\n"
    rows = json.loads(chatbot("models", "list", "--kind", "aigc", "--json").stdout)
    row = next(row for row in rows if row["name"] == "discs")
    assert row["state"] == "candidate"
    assert row["figures"]["kimg"] > 0
    assert len(row["data_fingerprint"]) == 64
    assert chatbot("models", "promote", "discs@1").returncode == 0
    out = tmp_path / "red.png"
    done = chatbot("imagine", "a red disc", "-o", str(out), "--count", "2", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["model"] == "discs@1"
    assert [picture["seed"] for picture in said["pictures"]] == [7, 8]
    image = Image.open(io.BytesIO((tmp_path / "red-1.png").read_bytes()))
    assert (image.mode, image.size) == ("RGBA", (32, 32))
    assert image.text["prompt"] == "a red disc"  # type: ignore[attr-defined]  # a PNG has it
    assert image.text["seed"] == "7"  # type: ignore[attr-defined]  # a PNG has it
    assert image.text["version"] == "discs@1"  # type: ignore[attr-defined]  # a PNG has it


@pytest.mark.parametrize("asks", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_and_can_be_gone_on_with(
    chatbot: Chatbot, data: Path, tmp_path: Path, asks: signal.Signals
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "chatbot", "train", "aigc", "--data", str(data), "--out", str(run)]
    process = subprocess.Popen([*command, "--kimg", "0.3", *SMALL], stderr=subprocess.PIPE, text=True)
    while not (run / "stats.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(asks)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + asks
    assert "--resume" in said
    done = chatbot("train", "aigc", "--out", str(run), "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run@1 is a candidate")
    done = chatbot("train", "aigc", "--out", str(run), "--resume")  # it has ended
    assert done.stdout.startswith("run@1 is a candidate")


def test_a_run_that_was_killed_ends_as_one_that_was_not(chatbot: Chatbot, data: Path, tmp_path: Path) -> None:
    often = "import sys; from chatbot.aigc import train; from chatbot.__main__ import main; "
    often += "train._CHECKPOINT = train._FIRST_CHECKPOINT = 0.0; sys.exit(main())"
    command = [sys.executable, "-c", often, "train", "aigc"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = ["--data", str(data), "--kimg", "0.3", *SMALL]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole), *asked], check=True, capture_output=True, env=environment)
    for when in (3, 20):  # in the first stage, and in the second
        arguments = ["--out", str(killed), *(asked if when == 3 else ["--resume"])]
        process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, env=environment)
        while max(checkpoint.numbers(killed / "checkpoints"), default=0) < when and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "--out", str(killed), "--resume"], check=True, capture_output=True, env=environment)
    one, other = last(whole), last(killed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "aigc", "--data", "nowhere", "--out", "run"), "is no folder"),
        (("train", "aigc", "--data", ".", "--out", "run"), "There are no pictures"),
        (("train", "aigc", "--out", "run", "--resume"), "no run to resume"),
        (("train", "aigc", "--out", "run", "--resume", "--minutes", "5"), "leave --minutes out"),
        (("train", "aigc", "--data", ".", "--out", "run", "--minutes", "-3"), "--minutes -3"),
        (("train", "aigc", "--out", "run", "--resolution", "48"), "32, 64, 128 or 256"),
        (("train", "aigc", "--out", "run", "--conditioning", "classes", "--no-memory"), "leave --no-memory out"),
        (("train", "aigc", "--out", "run", "--resume", "--no-memory"), "leave --no-memory out"),
        (("train", "aigc", "--out", "run", "--resume", "--dry-run"), "leave --dry-run out"),
        (("imagine", "a cat", "-o", "cat.jpg"), "PNG is what is written"),
        (("imagine", "a cat", "-o", "no/cat.png"), "There is no folder"),
        (("imagine", "a cat", "-o", "cat.png", "--model", "smollm2-135m-instruct"), "makes no pictures"),
        (("train", "aigc", "--data", ".", "--out", "run", "--teacher", "nobody"), "no teacher 'nobody'"),
    ],
)
def test_a_mistake_gets_one_sentence(
    chatbot: Chatbot,
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = chatbot(*arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("evaluate", "aigc"), ("train", "aigc", "--out", "run")])
def test_without_pictures_and_without_npm_it_is_said_what_to_do(
    chatbot: Chatbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "models").symlink_to(REAL_CACHE / "models")
    monkeypatch.setenv("CHATBOT_CACHE", str(cache))
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.chdir(tmp_path)
    done = chatbot(*arguments)
    assert done.returncode == 2
    assert "install Node.js, or bring your own: --data DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(chatbot: Chatbot, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = chatbot("train", "aigc", "--data", str(data), "--out", str(run), "--kimg", "1", "--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert all(
        word in done.stdout for word in ("18 pictures", "parameters", "memory", "images/s", "1 kimg take about")
    )
    assert not run.exists()
