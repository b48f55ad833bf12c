"""Every command that README shows does what it says, on the real model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
TARGETS = re.findall(r"^make (\w+)", README, re.MULTILINE)


def test_the_commands_of_readme_run_one_after_the_other(home: Path, model_path: Path) -> None:
    assert len(CONSOLE) > 12
    for command in CONSOLE:
        runnable = re.sub(r"\bchatbot\b", f"{sys.executable} -m chatbot", command)
        done = subprocess.run(
            runnable, shell=True, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_readme_opens_with_the_two_make_commands() -> None:
    assert TARGETS == ["chat", "test"]
    assert (
        README.index("make chat") < README.index("uv venv") < README.index("pipx install .") < README.index("py -m")
    )


@pytest.mark.parametrize("target", ["chat", "test", "bench"])
def test_make_has_the_target(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
