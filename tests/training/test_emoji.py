"""The pictures of the default model, out of packages as npm brings them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from chatbot.aigc import dataset, emoji
from chatbot.errors import UserError

HEART, CLOCK, FLAG = "2764-FE0F", "23F0", "1F1E8-1F1ED"
NPM = """#!/bin/sh
echo "$2" >> {asked}
file=$(echo "$2" | tr -c 'a-z0-9\\n' '-').tgz
/bin/cp "{registry}/$file" "$5/$file" || exit 1
echo "$file"
"""


def silent(text: str, fraction: float | None) -> None:
    pass


def archive(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def drawing(size: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGBA", (size, size), (200, 0, 0, 128)).save(held, "PNG")
    return held.getvalue()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that has small packages of the same make, and notes what it was asked for."""
    registry, programs = tmp_path / "registry", tmp_path / "bin"
    registry.mkdir()
    programs.mkdir()

    def place(package: str) -> Path:
        return registry / (
            "".join(c if c.isascii() and (c.islower() or c.isdigit()) else "-" for c in package) + ".tgz"
        )

    rows = [
        {"label": "red heart", "hexcode": HEART, "tags": ["love", "<3"], "group": 8},
        {"label": "alarm clock", "hexcode": CLOCK, "tags": ["time"], "group": 5},
        {"label": "flag: Switzerland", "hexcode": FLAG, "tags": [], "group": 9},
    ]
    chinese = [{**row, "label": label} for row, label in zip(rows, ("红心", "闹钟", "旗"), strict=True)]
    data = {"en": rows, "zh": chinese}
    archive(
        place(emoji.NAMES), {f"package/{name}/data.json": json.dumps(each).encode() for name, each in data.items()}
    )
    for package, folder in emoji.VENDORS.values():
        codes = (HEART.lower(), CLOCK.lower(), FLAG.lower())
        archive(place(package), {f"{folder}{code}.png": drawing(72) for code in codes})
    (programs / "npm").write_text(NPM.format(asked=tmp_path / "asked", registry=registry))
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "asked"


def test_the_pictures_are_built_once_and_kept(asked: Path) -> None:
    place = emoji.kept(silent)
    items = dataset.scan(place)
    assert {item.style for item in items} == {"noto", "twemoji", "fluent"}
    assert {item.concept for item in items} == {"red heart", "alarm clock"}  # flags of countries are left out
    assert items[0].texts in (("red heart", "love"), ("alarm clock", "time"))
    with Image.open(place / items[0].file) as image:
        assert (image.mode, image.size) == ("RGBA", (64, 64))
    assert "红心" in (place / "chinese.tsv").read_text(encoding="utf-8")
    packages = asked.read_text().split()
    assert len(packages) == 4
    assert emoji.kept(silent) == place
    assert asked.read_text().split() == packages


def test_a_build_that_breaks_off_leaves_nothing_that_is_taken_for_whole(asked: Path, tmp_path: Path) -> None:
    last = max((tmp_path / "registry").iterdir(), key=lambda path: "lobehub" in path.name)
    last.rename(tmp_path / "away.tgz")
    with pytest.raises(UserError, match=r"npm cannot download @lobehub.*--data DIR"):
        emoji.kept(silent)
    (tmp_path / "away.tgz").rename(last)
    assert len(dataset.scan(emoji.kept(silent))) == 6


def test_without_npm_a_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHATBOT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="npm is needed"):
        emoji.kept(silent)
