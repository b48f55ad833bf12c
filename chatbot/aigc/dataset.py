"""Folders of pictures: what is in them, and one array of them all, prepared once for a run.

Read are, in this order: `metadata.jsonl` or `metadata.csv` with file_name and text, and style and concept where there
are any (Hugging Face's imagefolder convention; text may be a list of captions; where the folder has none, those of
the folders in it); a .txt beside each picture, one caption a line; folders as classes (torchvision's ImageFolder); or
pictures alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from chatbot.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PICTURES = "pictures.npy"
ITEMS = "items.json"
_DECODED = "decoded.partial"

_HELD_OUT = 25  # one concept of these many, and one drawing of these many, is kept for judging
_ENOUGH = 500  # below this many pictures every one is needed for training
_LARGEST = 100_000_000  # pixels; beyond, decoding alone takes gigabytes
_COPIED = 64  # pictures at a time
_STYLELESS = ""

Tell = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Item:
    """A picture. `texts`: captions, the name first; `concept`: what it shows, by which the splits are made;
    `split`: `train`, `drawing` (unseen drawing of a seen concept) or `concept` (unseen concept)."""

    file: str
    texts: tuple[str, ...]
    style: str
    concept: str
    split: str = "train"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Prepared pictures: premultiplied uint8 (N, R, R, channels), read from the disk as they are needed."""

    pictures: NDArray[np.uint8]
    items: tuple[Item, ...]
    fingerprint: str

    @property
    def styles(self) -> list[str]:
        return sorted({item.style for item in self.items})

    def split(self, name: str) -> list[int]:
        """Numbers of the pictures of a split."""
        return [number for number, item in enumerate(self.items) if item.split == name]


def scan(folder: Path, complain: Callable[[str], None] = lambda text: None) -> list[Item]:
    """What a folder holds, undecoded; pictures without metadata beside those that have some are complained of.

    Raises:
        UserError: there is no such folder, no picture in it, or its metadata cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.")
    described = _described(folder)
    places = {path.parent for path in described}
    plain: list[Path] = []
    if folder not in places:
        found = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
        plain = [path for path in found if places.isdisjoint(path.parents)]
    if described:
        items = [_item(row, path, folder) for path in described for row in _rows(path)]
        if plain:
            first = _sound(plain[0].relative_to(folder).as_posix())
            complain(f"Passed over pictures that have no metadata, as others do: {len(plain)}, {first} the first.")
    else:
        items = [_plain(path, folder) for path in plain]
    if not items:
        raise UserError(f"There are no pictures in {folder}; {', '.join(SUFFIXES)} are read.")
    return _with_splits(items)


def prepare(
    folder: Path, out: Path, resolution: int, tell: Tell, complain: Callable[[str], None], *, most: int | None = None
) -> Dataset:
    """Decode every picture of `folder` to `resolution` into `out`; the bad ones are named and passed over.

    Args:
        most: only so many, from first to last alike, for a look at what a run would cost.

    Raises:
        UserError: fewer than two pictures can be read.
    """
    items = scan(folder, complain)
    if most is not None and most < len(items):
        items = [items[n * len(items) // most] for n in range(most)]
    out.mkdir(parents=True, exist_ok=True)
    kept: list[Item] = []
    bad = transparent = 0
    with (out / _DECODED).open("wb") as file:
        for number, item in enumerate(items):
            if number % 100 == 0:
                tell(f"Reading {len(items)} pictures", number / len(items))
            try:
                picture = decode(folder / item.file, resolution)
            except Exception as error:  # whatever a damaged file makes Pillow raise
                bad += 1
                if bad <= 20:
                    complain(f"Passed over {_sound(item.file)}: {_reason(error)}.")
                continue
            file.write(picture.tobytes())
            transparent += int(picture[..., 3].min() < 255)
            kept.append(item)
    if bad > 20:
        complain(f"Passed over {bad} pictures in all.")
    if len(kept) < 2:
        raise UserError(f"{folder} holds {len(kept)} readable picture{'s' * (len(kept) != 1)}; two are the least.")
    shape = (len(kept), resolution, resolution, 4)
    decoded = np.memmap(out / _DECODED, dtype=np.uint8, mode="r", shape=shape)
    rows = [asdict(item) for item in kept]
    channels = 4 if transparent > len(kept) // 100 else 3
    fingerprint = _keep(decoded[..., :channels], json.dumps(rows), out / PICTURES)
    del decoded
    (out / _DECODED).unlink()
    part = out / f"{ITEMS}.partial"  # by items.json it is seen that all is there
    part.write_text(json.dumps({"fingerprint": fingerprint, "items": rows}), encoding="utf-8")
    os.replace(part, out / ITEMS)
    return load(out)


def _keep(pictures: NDArray[np.uint8], items: str, path: Path) -> str:
    """Write the pictures as .npy, a few at a time since all may not fit in memory; gives the fingerprint of both."""
    digest = hashlib.sha256()
    header = {"descr": pictures.dtype.str, "fortran_order": False, "shape": pictures.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(pictures), _COPIED):
            part = pictures[start : start + _COPIED].tobytes()
            file.write(part)
            digest.update(part)
    digest.update(items.encode())
    return digest.hexdigest()


def load(out: Path) -> Dataset:
    """What `prepare` left. Raises UserError where it is not there, or not whole."""
    try:
        content = json.loads((out / ITEMS).read_text(encoding="utf-8"))
        pictures = np.load(out / PICTURES, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"The prepared pictures in {out} cannot be read ({error}); start the run anew.") from None
    items = tuple(Item(**{**row, "texts": tuple(row["texts"])}) for row in content["items"])
    return Dataset(pictures, items, content["fingerprint"])


def decode(path: Path, resolution: int) -> NDArray[np.uint8]:
    """A picture as premultiplied RGBA (R, R, 4): the first frame, upright, whole, padded to a square with
    transparency where it has some, else its middle square.

    Raises whatever Pillow does where it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image: Image.Image = Image.open(path)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as warning:
            raise ValueError("it has too many pixels") from warning
    with image:
        if image.format == "JPEG":
            image.draft("RGB", (resolution * 2, resolution * 2))
        if image.width * image.height > _LARGEST:
            raise ValueError(f"it has too many pixels ({image.width} x {image.height})")
        image.seek(0)
        if image.mode.startswith("I;16") or image.mode == "I":
            wide = np.asarray(image).astype(np.float64)
            image = Image.fromarray((wide / (257 if wide.max() > 255 else 1)).clip(0, 255).astype(np.uint8))
        with suppress(Exception):  # damaged, it says nothing; the picture is there
            image = ImageOps.exif_transpose(image)
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        image = image.convert("RGBA")
    if has_alpha:
        longer = max(image.size)
        width, height = (max(1, round(side * resolution / longer)) for side in image.size)
        image = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
        square = Image.new("RGBa", (resolution, resolution))
        square.paste(image, ((resolution - width) // 2, (resolution - height) // 2))
        return np.asarray(square)
    return np.asarray(ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS))


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror.lower()
    return "it is no picture that can be read" if "cannot identify" in text else text.rstrip(".")


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read(path).split("\n"), 1):  # JSON may hold what splitlines splits at
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError(f"Line {number} of {path} is no JSON.") from None
            if not isinstance(row, dict):
                raise UserError(f"Line {number} of {path} is no JSON object.")
            yield row


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    try:
        yield from csv.DictReader(io.StringIO(_read(path), newline=""))
    except csv.Error as error:
        raise UserError(f"{path} is no CSV: {error}.") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


def _described(folder: Path) -> list[Path]:
    """The metadata of a folder, or where it has none of its own, of the folders in it, as of splits."""
    for places in ([folder], sorted(each for each in folder.iterdir() if each.is_dir())):
        if found := [path for place in places if (path := _metadata(place)) is not None]:
            return found
    return []


def _metadata(place: Path) -> Path | None:
    found = [path for name in ("metadata.jsonl", "metadata.csv") if (path := place / name).is_file()]
    return found[0] if found else None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)


def _sound(text: str) -> str:
    """With ? for the halves of characters that JSON may hold, and that stand in names which are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _item(row: dict[str, Any], path: Path, folder: Path) -> Item:
    file, text = row.get("file_name"), row.get("text") or []
    if not isinstance(file, str):
        raise UserError(f"{path} has a row without file_name.")
    if not isinstance(text, str | list):
        raise UserError(f"{path}: the text of {file} is neither text nor a list of texts.")
    said = [text] if isinstance(text, str) else [each for each in text if isinstance(each, str)]
    texts = [_sound(each).strip() for each in said if each.strip()]
    concept = row.get("concept") or (texts[0] if texts else "")
    file = file if path.parent == folder else f"{path.parent.name}/{file}"
    return Item(file, tuple(texts), _sound(str(row.get("style") or _STYLELESS)), _sound(str(concept)))


def _plain(path: Path, folder: Path) -> Item:
    file = path.relative_to(folder).as_posix()
    beside = path.with_suffix(".txt")
    if beside.is_file():
        texts = [line.strip() for line in _read(beside).splitlines() if line.strip()]
    else:
        texts = [_sound(path.parent.name).replace("_", " ")] if path.parent != folder else []
    return Item(file, tuple(texts), _STYLELESS, texts[0] if texts else "")


def _with_splits(items: Sequence[Item]) -> list[Item]:
    """Hold some out, the same ones every time. Concepts only where there are many, drawings only of concepts that
    have others."""
    drawings = Counter(item.concept for item in items)
    if len(items) < _ENOUGH:
        return list(items)
    return [
        Item(item.file, item.texts, item.style, item.concept, _split(item, drawings[item.concept], len(drawings)))
        for item in items
    ]


def _split(item: Item, drawings: int, concepts: int) -> str:
    if item.concept and concepts >= _ENOUGH and _chance(item.concept) % _HELD_OUT == 0:
        return "concept"
    return "drawing" if drawings > 1 and _chance(item.file) % _HELD_OUT == 0 else "train"


def _chance(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big")
