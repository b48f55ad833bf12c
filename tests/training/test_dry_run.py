"""What a run would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chatbot.aigc import dry_run
from chatbot.aigc.options import from_preset
from tests.training.pictures import classes
from tests.training.runs import SMALL


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
    lines = dry_run.estimate(options, lambda text, fraction: None, lambda text: None)
    assert lines[0].startswith("528 pictures, 32 px")
    assert any(line.startswith("1 kimg take about") for line in lines)
    assert any("heads" in line for line in lines) is (loss == "projected")
