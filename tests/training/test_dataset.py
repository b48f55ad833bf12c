"""Folders of pictures as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chatbot.aigc import dataset
from chatbot.errors import UserError


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
