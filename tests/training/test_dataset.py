"""Folders of pictures as people have them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chatbot.aigc import dataset
from chatbot.errors import UserError

# Says by how many bytes memory grows while a picture is decoded.
_GROWTH = """
import resource, sys
from pathlib import Path
from chatbot.aigc.dataset import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(Path(sys.argv[1]), 64)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


def prepared(folder: Path, out: Path, resolution: int = 32) -> tuple[dataset.Dataset, list[str]]:
    said: list[str] = []
    return dataset.prepare(folder, out, resolution, lambda text, fraction: None, said.append), said


def test_odd_pictures_are_read_or_named_and_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "class"
    folder.mkdir(parents=True)
    Image.fromarray((np.arange(4096, dtype=np.uint16) * 16).reshape(64, 64)).save(folder / "16bit.png")
    Image.new("CMYK", (40, 50), (10, 200, 30, 0)).save(folder / "cmyk.jpg")
    frames = [Image.new("P", (20, 20), n) for n in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (20_000, 8), "red").save(folder / "wide.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty.jpg").write_bytes(b"")
    data, said = prepared(tmp_path / "data", tmp_path / "out")
    assert {Path(item.file).name for item in data.items} == {"16bit.png", "cmyk.jpg", "animated.gif", "wide.png"}
    assert len(said) == 3
    assert any("huge.png" in line and "too many pixels" in line for line in said)
    assert any("text.png: it is no picture that can be read" in line for line in said)
    wide = data.pictures[[item.file for item in data.items].index("class/16bit.png")]
    assert wide.max() > 200


def test_transparency_is_kept_premultiplied(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        Image.new("RGBA", (16, 32), (255, 0, 0, 128)).save(folder / f"{number}.png")
    data, _ = prepared(folder, tmp_path / "out")
    assert data.pictures.shape == (3, 32, 32, 4)
    assert data.pictures[0, 16, 16].tolist() == [128, 0, 0, 128]
    assert data.pictures[0, 16, 0].tolist() == [0, 0, 0, 0]


def test_captions_come_from_metadata_or_text_files_or_folders(tmp_path: Path) -> None:
    for name in ("jsonl", "csv", "txt", "folders/tall_tree"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    row = {"file_name": "a.png", "text": ["tree", "plant"], "style": "flat"}
    (tmp_path / "jsonl" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "csv" / "metadata.csv").write_text('file_name,text\na.png,"a tree, tall"\n')
    (tmp_path / "txt" / "a.txt").write_text("tree\nplant\n")
    assert dataset.scan(tmp_path / "jsonl")[0] == dataset.Item("a.png", ("tree", "plant"), "flat", "tree")
    assert dataset.scan(tmp_path / "csv")[0].texts == ("a tree, tall",)
    assert dataset.scan(tmp_path / "txt")[0].texts == ("tree", "plant")
    assert dataset.scan(tmp_path / "folders")[0].texts == ("tall tree",)


def test_what_cannot_be_trained_on_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        dataset.scan(tmp_path / "empty")
    with pytest.raises(UserError, match="is no folder"):
        dataset.scan(tmp_path / "nothing")
    (tmp_path / "empty" / "metadata.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match="Line 1"):
        dataset.scan(tmp_path / "empty")
    (tmp_path / "empty" / "metadata.jsonl").write_text('{"file_name": "gone.png"}\n')
    with pytest.raises(UserError, match="two are the least"):
        prepared(tmp_path / "empty", tmp_path / "out")


def test_splits_are_by_concept_and_the_same_every_time() -> None:
    items = [
        dataset.Item(f"{style}/{n}.png", (f"thing {n}",), style, f"thing {n}") for n in range(600) for style in "ab"
    ]
    split = dataset._with_splits(items)
    assert split == dataset._with_splits(items)
    unseen = {item.concept for item in split if item.split == "concept"}
    assert 10 < len(unseen) < 50
    assert all((item.concept in unseen) == (item.split == "concept") for item in split)
    assert any(item.split == "drawing" for item in split)


def test_metadata_of_splits_is_read_too_and_line_breaks_stay_in_captions(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a.png")
        (tmp_path / split / "metadata.csv").write_text('file_name,text\na.png,"a tree,\ntall"\n')
    items = dataset.scan(tmp_path)
    assert [(item.file, item.texts) for item in items] == [
        ("test/a.png", ("a tree,\ntall",)),
        ("train/a.png", ("a tree,\ntall",)),
    ]


@pytest.mark.parametrize("text", [5, True, {"en": "cat"}])
def test_a_caption_that_is_none_is_said_with_its_picture(tmp_path: Path, text: object) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": text}))
    with pytest.raises(UserError, match=r"metadata\.jsonl: the text of a\.png is neither text nor a list of texts"):
        dataset.scan(tmp_path)


def test_captions_of_any_length_and_of_any_characters_are_read(tmp_path: Path) -> None:
    long = "word " * 50_000
    (tmp_path / "metadata.csv").write_text(f"file_name,text\na.png,{long}\n")
    assert dataset.scan(tmp_path)[0].texts == (long.strip(),)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "half \\ud83d"}')
    assert dataset.scan(tmp_path)[0].texts == ("half ?",)


def test_a_picture_whose_exif_is_damaged_is_read(tmp_path: Path) -> None:
    damaged = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"  # it ends within its first entry
    for number in range(2):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{number}.jpg", exif=damaged)
    data, said = prepared(tmp_path, tmp_path / "out")
    assert (len(data.items), said) == (2, [])


def test_a_narrow_transparent_picture_is_read_whole_and_takes_no_more_memory_than_it_has(tmp_path: Path) -> None:
    wide = Image.new("RGBA", (20_000, 8))
    wide.paste((255, 0, 0, 255), (0, 0, 10_000, 8))
    wide.save(tmp_path / "wide.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    grown = subprocess.check_output([sys.executable, "-c", _GROWTH, str(tmp_path / "wide.png")], text=True)
    assert int(grown) < 100_000_000
    seen = dataset.decode(tmp_path / "wide.png", 64)
    assert seen.shape == (64, 64, 4)
    rows = np.flatnonzero(seen.any((1, 2)))
    assert rows.tolist() in ([31], [32])
    assert (seen[rows[0], :28] == (255, 0, 0, 255)).all()
    assert not seen[rows[0], 36:].any()
    assert np.flatnonzero(dataset.decode(tmp_path / "tall.png", 64).any((0, 2))).tolist() in ([31], [32])


def test_a_square_transparent_picture_is_resized_and_nothing_else(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (72, 72, 4), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    expected = Image.fromarray(noise).convert("RGBa").resize((32, 32), Image.Resampling.LANCZOS)
    assert (dataset.decode(tmp_path / "a.png", 32) == np.asarray(expected)).all()


@pytest.mark.parametrize(
    ("mode", "channels", "fingerprint"),
    [
        ("RGBA", 4, "2ed6c9c70343f2d6b1e0b9d642ef5c2c90a6fd29fb53f0477bb10dbd1ae997ea"),
        ("RGB", 3, "de7a78542fbcf6fbad18cf151c540b28edc39b8503af2e5eb3e70959f767e9a2"),
    ],
)
def test_a_class_of_three_pictures_is_kept_as_it_is_by_a_fingerprint_that_stays(
    tmp_path: Path, mode: str, channels: int, fingerprint: str
) -> None:
    folder = tmp_path / "data" / "tree"
    folder.mkdir(parents=True)
    colours = [(200, 40 * n, 30, 255 - 100 * n)[: len(mode)] for n in range(3)]
    for number, colour in enumerate(colours):
        Image.new(mode, (32, 32), colour).save(folder / f"{number}.png")
    data, said = prepared(tmp_path / "data", tmp_path / "out")
    assert data.pictures.shape == (3, 32, 32, channels)
    assert said == []
    assert data.items == tuple(dataset.Item(f"tree/{n}.png", ("tree",), "", "tree") for n in range(3))
    for picture, (red, green, blue, *alpha) in zip(data.pictures, colours, strict=True):
        share = alpha[0] / 255 if alpha else 1
        expected = [*(round(each * share) for each in (red, green, blue)), *alpha]
        assert (np.abs(picture.astype(int) - expected) <= 1).all()
    assert data.fingerprint == fingerprint
    again = dataset.load(tmp_path / "out")
    assert (again.items, again.fingerprint) == (data.items, fingerprint)
    assert (np.asarray(again.pictures) == np.asarray(data.pictures)).all()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "data")
    for name in (b"caf\xe9", b"tea"):
        os.makedirs(os.path.join(folder, name))
        for number in range(250):  # so many that some are held out
            with open(os.path.join(folder, name, b"\xe9%d.png" % number), "wb") as file:
                Image.new("RGB", (8, 8)).save(file, "png")
    with open(os.path.join(folder, b"tea", b"\xe9x.png"), "wb") as file:
        file.write(b"no picture")
    data, said = prepared(tmp_path / "data", tmp_path / "out")
    assert (len(data.items), len(data.split("drawing")) > 0) == (500, True)
    assert data.items == tuple(item for item in dataset.scan(tmp_path / "data") if "x.png" not in item.file)
    assert {item.concept for item in data.items} == {item.texts[0] for item in data.items} == {"caf?", "tea"}
    assert all((tmp_path / "data" / item.file).is_file() for item in data.items)
    assert [line.encode() for line in said] == [b"Passed over tea/?x.png: it is no picture that can be read."]


def test_half_a_character_in_the_metadata_stops_nothing(tmp_path: Path) -> None:
    row = '{"file_name": "%d.png", "text": "tree", "style": "half \\ud83d", "concept": "\\ud83d"}\n'
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "metadata.jsonl").write_text("".join(row % number for number in range(2)))
    data, _ = prepared(tmp_path, tmp_path / "out")
    assert {(item.style, item.concept) for item in data.items} == {("half ?", "?")}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_a_line_of_metadata_ends_where_json_ends_it(tmp_path: Path, mark: str) -> None:
    rows = [{"file_name": f"{n}.png", "text": f"a tree{mark}tall"} for n in range(2)]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    assert [item.texts for item in dataset.scan(tmp_path)] == [(f"a tree{mark}tall",)] * 2


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
def test_preparing_takes_no_memory_for_all_the_pictures_at_once(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (8, 8), (9, 9, 9, 128)[: len(mode)]).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n' * 600)
    tracemalloc.start()
    try:
        data, _ = prepared(tmp_path, tmp_path / "out", 128)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data.items) == 600
    assert most < data.pictures.nbytes / 2


def test_what_was_written_in_part_is_prepared_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(data / f"{number}.png")
    (data / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{n}.png", "text": "word " * 10_000}) + "\n" for n in range(2))
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # of a file: enough for the pictures, not for the items
    try:
        with pytest.raises(OSError, match="File too large"):
            prepared(data, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "out" / dataset.ITEMS).exists()  # by which a run sees that its pictures are prepared
    prepared(data, tmp_path / "out")
    assert len(dataset.load(tmp_path / "out").items) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {dataset.ITEMS, dataset.PICTURES}


def test_folders_are_described_each_in_its_own_way_and_what_is_not_is_said(tmp_path: Path) -> None:
    for name in ("csv", "jsonl", "loose/deep", "empty"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("csv", "jsonl", "loose", "loose/deep", "."):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    (tmp_path / "csv" / "metadata.csv").write_text("file_name,text\na.png,a tree\n")
    (tmp_path / "jsonl" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n')
    data, said = prepared(tmp_path, tmp_path / "out")
    assert [(item.file, item.texts) for item in data.items] == [
        ("csv/a.png", ("a tree",)),
        ("jsonl/a.png", ("a cat",)),
    ]
    assert said == ["Passed over pictures that have no metadata, as others do: 3, a.png the first."]
    (tmp_path / "metadata.csv").write_text("file_name,text\nloose/a.png,a dog\na.png,a cow\n")
    data, said = prepared(tmp_path, tmp_path / "out")
    assert [item.texts for item in data.items] == [("a dog",), ("a cow",)]
    assert said == []  # a folder's own metadata says which pictures are meant
