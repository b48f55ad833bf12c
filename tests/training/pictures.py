"""Small folders of pictures to train on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30, 255), "green": (30, 180, 60, 255), "blue": (40, 60, 220, 255)}


def classes(folder: Path, each: int = 6, size: int = 32) -> Path:
    """Discs of three colours on transparency, a folder for each colour."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            image = Image.new("RGBA", (size, size))
            ImageDraw.Draw(image).ellipse((2 + number, 2, size - 3, size - 3 - number), fill=colour)
            image.save(folder / name / f"{number}.png")
    return folder
