"""Builds the training pictures of the default model from public packages: `python -m chatbot.aigc.emoji OUT`.

OUT becomes a folder as `chatbot train aigc --data` reads it: 64x64 RGBA pictures by vendor and a metadata.jsonl with
file_name, text (the name, then keywords), style (the vendor) and concept (the name), and chinese.tsv, the names and
keywords in Chinese that `chatbot.aigc.chinese` reads. Needs npm for the packages, with
whatever registry it is set to. Country flags, skin tones and mirrored variants are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from chatbot.errors import UserError, exit_code
from chatbot.settings import cache_folder

Tell = Callable[[str, float | None], None]

SIZE = 64

EDITION = "emoji-2"
"""Names what is built: a change of packages or of the recipe is another, beside what a cache holds already."""

VENDORS = {
    "noto": ("emoji-datasource-google@16.0.0", "package/img/google/64/"),
    "twemoji": ("emoji-datasource-twitter@16.0.0", "package/img/twitter/64/"),
    "fluent": ("@lobehub/fluent-emoji-3d@1.1.0", "package/assets/"),
}
"""Style, the npm package and the folder of its pictures, which are named by code points."""

NAMES = "emojibase-data@17.0.0"

ATTRIBUTION = """The pictures of this folder, by style:
noto     Noto Emoji, Copyright Google LLC, Apache-2.0 (npm emoji-datasource-google 16.0.0)
twemoji  Twemoji, Copyright Twitter, Inc. and other contributors, CC-BY-4.0 (npm emoji-datasource-twitter 16.0.0)
fluent   Fluent Emoji, Copyright Microsoft Corporation, MIT (npm @lobehub/fluent-emoji-3d 1.1.0)
Names and keywords: emojibase-data 17.0.0, Copyright Miles Johnson, MIT; from Unicode CLDR.
"""

_PATIENCE = ("--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-factor=3")
"""Of npm: seconds until it says that there is no network, not minutes."""

_FLAGS = 9
_COMPONENTS = 2
_KEPT_FLAGS = ("chequered flag", "triangular flag", "crossed flags", "black flag", "white flag", "rainbow flag",
               "pirate flag")  # fmt: skip


def kept(tell: Tell) -> Path:
    """The folder of the pictures in the cache, built the first time: whole or not at all.

    Raises:
        UserError: as `build`, or the cache cannot be written.
    """
    pictures = cache_folder() / "pictures"
    place = pictures / EDITION
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        with FileLock(pictures / ".lock"):
            if not place.exists():
                part = pictures / f"{EDITION}.partial"
                shutil.rmtree(part, ignore_errors=True)  # what a killed one left
                build(part, tell)
                part.rename(place)
    except OSError as error:
        raise UserError(f"The pictures cannot be kept in {pictures}: {error.strerror or error}.") from None
    return place


def build(out: Path, tell: Tell = lambda text, fraction: None) -> int:
    """Download, unpack and write everything into `out`; returns how many pictures there are.

    Raises:
        UserError: npm is missing or cannot download, or `out` holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; name a folder that is new.")
    if shutil.which("npm") is None:
        raise UserError("npm is needed to download the pictures; install Node.js, or bring your own: --data DIR.")
    rows: dict[str, dict[str, Any]] = {}  # by file: some vendors ship a picture twice, with and without U+FE0F
    with tempfile.TemporaryDirectory() as name:
        tell("Building the pictures of the default model, once: names", 0.0)
        archive = pack(NAMES, Path(name))
        concepts = {key(row["hexcode"]): row for row in names(archive, "en") if _wanted(row)}
        out.mkdir(parents=True, exist_ok=True)
        (out / "chinese.tsv").write_text(_chinese(names(archive, "zh"), concepts), encoding="utf-8")
        for number, (style, (package, folder)) in enumerate(VENDORS.items()):
            tell(f"Building the pictures of the default model, once: {style}", (1 + number) / (1 + len(VENDORS)))
            (out / style).mkdir(parents=True, exist_ok=True)
            for path, content in _members(pack(package, Path(name)), folder):
                concept = concepts.get(key(path.stem))
                if concept is None:
                    continue
                target = out / style / f"{key(path.stem)}.png"
                picture(content).save(target, optimize=True)
                file_name = f"{style}/{target.name}"
                rows[file_name] = {
                    "file_name": file_name,
                    "text": captions(concept),
                    "style": style,
                    "concept": concept["label"],
                }
    text = "".join(json.dumps(rows[file_name], ensure_ascii=False) + "\n" for file_name in sorted(rows))
    (out / "metadata.jsonl").write_text(text, encoding="utf-8")
    (out / "ATTRIBUTION.txt").write_text(ATTRIBUTION, encoding="utf-8")
    return len(rows)


def pack(package: str, folder: Path) -> Path:
    """Let npm download a package into `folder`; gives its archive. Raises UserError where that fails."""
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder), *_PATIENCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            f"npm cannot download {package}; check the network and npm's settings, or bring pictures of your own: "
            "--data DIR."
        )
    return folder / done.stdout.strip().splitlines()[-1]


def names(archive: Path, language: str) -> list[dict[str, Any]]:
    """emojibase's rows of a language: label, hexcode, tags, group."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{language}/data.json")
        assert member is not None
        rows: list[dict[str, Any]] = json.load(member)
    return rows


def key(code: str) -> str:
    """Code points as every package can be joined by: `0023-FE0F-20E3` is `23-20e3`."""
    points = (point.lstrip("0") for point in code.lower().split("-"))
    return "-".join(point for point in points if point != "fe0f")


def captions(row: dict[str, Any]) -> list[str]:
    """The name, then keywords that are words."""
    texts = [row["label"].replace(":", ""), *row.get("tags", [])]
    return list(dict.fromkeys(text.lower() for text in texts if any(character.isalpha() for character in text)))


def picture(content: bytes) -> Image.Image:
    """RGBA, 64x64; what lies under full transparency is black, so that it holds nothing to learn."""
    image = Image.open(io.BytesIO(content)).convert("RGBA").convert("RGBa")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return image.convert("RGBA")


def _chinese(rows: list[dict[str, Any]], concepts: dict[str, dict[str, Any]]) -> str:
    lines = ["# English name, Chinese name, Chinese keywords: emojibase-data 17.0.0, Copyright Miles Johnson, MIT"]
    for row in rows:
        concept = concepts.get(key(row["hexcode"]))
        if concept is not None:
            keywords = [tag for tag in row.get("tags", []) if tag != row["label"]]
            lines.append("\t".join((concept["label"], row["label"].replace("：", ""), "|".join(keywords))))
    return "\n".join(lines) + "\n"


def _wanted(row: dict[str, Any]) -> bool:
    if row.get("group") in (None, _COMPONENTS) or "facing right" in row["label"]:
        return False
    return row["group"] != _FLAGS or row["label"].removeprefix("flag: ") in _KEPT_FLAGS


def _members(archive: Path, folder: str) -> Iterator[tuple[Path, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith(folder) and member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                yield Path(member.name), content.read()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chatbot.aigc.emoji", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    out: Path = parser.parse_args().out
    return exit_code(lambda: print(f"{build(out)} pictures in {out}"))


if __name__ == "__main__":
    sys.exit(main())
