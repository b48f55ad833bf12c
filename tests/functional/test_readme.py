"""Every command that README shows does what it says, on the real model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.pictures import classes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
TARGETS = re.findall(r"^make (\w+)", README, re.MULTILINE)


def test_the_commands_of_readme_run_one_after_the_other(home: Path, model_path: Path, tmp_path: Path) -> None:
    assert len(CONSOLE) > 12
    shutil.copy(ROOT / "Makefile", tmp_path)  # one of them reads it
    for command in CONSOLE:
        runnable = re.sub(r"\bchatbot\b", f"{sys.executable} -m chatbot", command)
        done = subprocess.run(
            runnable, shell=True, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_the_training_lines_of_readme_train_a_model_that_answers(home: Path, tmp_path: Path) -> None:
    """As they stand there, but on a few pictures, for a moment."""
    classes(tmp_path / "DIR")
    lines = re.findall(r"^chatbot (?:train|models) .*\b(?:DIR|RUN)\b.*$", README, re.MULTILINE)
    assert [line.split()[1:3] for line in lines] == [["train", "aigc"], ["train", "aigc"], ["models", "promote"]]
    quick = "--kimg 0.03 --preset cpu-32 --batch 8 --conditioning classes"
    lines = [lines[0].replace("--minutes 60", quick), lines[1], lines[2].replace("RUN@1", "run@1")]
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_readme_opens_with_the_two_make_commands() -> None:
    assert TARGETS == ["chat", "test"]
    assert (
        README.index("make chat") < README.index("uv venv") < README.index("pipx install .") < README.index("py -m")
    )


@pytest.mark.parametrize("target", ["chat", "test", "bench"])
def test_make_has_the_target(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
