"""What every model that makes pictures keeps to."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from PIL import Image

from chatbot.catalog import DEFAULTS
from chatbot.engines.aigc import AigcGenerator
from chatbot.engines.base import MOST_PICTURES, ImageGenerator, Picture
from chatbot.engines.fake import ScriptedGenerator
from chatbot.errors import ModelError
from chatbot.fetch import is_fetched, model_file
from tests.conftest import REAL_CACHE


@pytest.fixture
async def generator() -> AsyncIterator[ImageGenerator]:
    encoder = DEFAULTS["encoder"]
    assert is_fetched(encoder, REAL_CACHE / "models"), f"`chatbot models pull {encoder.name}` first"
    folder = model_file(DEFAULTS["aigc"], REAL_CACHE / "models").parent
    loaded = await AigcGenerator.load(folder, model_file(encoder, REAL_CACHE / "models").parent, "stickers@2")
    yield loaded
    await loaded.close()


@pytest.fixture(params=["aigc", "fake"])
def either(request: pytest.FixtureRequest) -> ImageGenerator:
    """Every engine there is."""
    if request.param == "fake":
        return ScriptedGenerator()
    generator: ImageGenerator = request.getfixturevalue("generator")
    return generator


async def made(generator: ImageGenerator, prompt: str, **asked: object) -> tuple[list[Picture], list[str]]:
    answers = [answer async for answer in generator.imagine(prompt, **asked)]  # type: ignore[arg-type]  # by name
    return [a for a in answers if isinstance(a, Picture)], [a for a in answers if isinstance(a, str)]


async def test_seed_and_style_decide_a_picture(either: ImageGenerator) -> None:
    assert either.alive
    style = either.styles[0]
    (one, two, three), _ = await made(either, "a cat", count=3, seed=5, style=style)
    assert [one.seed, two.seed, three.seed] == [5, 6, 7]
    assert {one.style, two.style, three.style} == {style}
    assert len({one.png, two.png, three.png}) == 3
    (same,), _ = await made(either, "a cat", seed=6, style=style)
    assert same.png == two.png
    (drawn,), _ = await made(either, "a cat")
    assert drawn.style in either.styles
    assert Image.open(io.BytesIO(drawn.png)).mode == "RGBA"


async def test_what_cannot_be_made_is_said_in_a_sentence(either: ImageGenerator) -> None:
    for count in (0, MOST_PICTURES + 1):
        with pytest.raises(ModelError, match="One to 64"):
            await made(either, "a cat", count=count)
    with pytest.raises(ModelError, match="does not know the style 'oil'; it knows"):
        await made(either, "a cat", style="oil")


async def test_leaving_early_and_asking_side_by_side_do_no_harm(either: ImageGenerator) -> None:
    async with aclosing(either.imagine("a cat", count=MOST_PICTURES)) as answers:
        async for _ in answers:
            break
    several = await asyncio.gather(*(made(either, text, seed=1) for text in ("dog", "cat", "dog")))
    assert several[0] == several[2] != several[1]


async def test_pictures_are_what_was_asked_for(generator: ImageGenerator) -> None:
    assert generator.styles == ("fluent", "noto", "twemoji")
    (one, two), notices = await made(generator, "a red heart", count=2, seed=5, style="noto")
    assert not notices
    assert (one.seed, two.seed, one.style) == (5, 6, "noto")
    image = Image.open(io.BytesIO(one.png))
    assert (image.mode, image.size) == ("RGBA", (64, 64))
    alpha = image.getchannel("A")
    assert alpha.getpixel((1, 1)) < 40  # type: ignore[operator]  # of one band, a number
    assert alpha.getpixel((32, 32)) > 200  # type: ignore[operator]  # of one band, a number
    red, green, blue, _ = image.getpixel((32, 30))  # type: ignore[misc]  # of four bands
    assert red > 150 > max(green, blue)

    _, notices = await made(generator, "asdf qwer zxcv", seed=1)
    assert "may not know what this is" in notices[0]
    (cat, *_), notices = await made(generator, "画一只猫", seed=1, style="noto")
    assert notices == ["Read as: cat"]
    assert cat.seed == 1
    (odd, *_), _ = await made(generator, "\n " + "very " * 5_000 + "long", seed=1)
    assert odd.png


async def test_where_several_things_are_meant_the_seed_chooses_and_where_one_is_it_does_not(
    generator: ImageGenerator,
) -> None:
    _, [read] = await made(generator, "a fruit", count=16, seed=1)
    assert read.startswith("Read as: ")
    assert len(set(read.removeprefix("Read as: ").split(", ")) & {"pear", "peach", "watermelon"}) >= 2
    for named in ("a red heart", "keycap: 4", "the up arrow", "pen"):
        _, notices = await made(generator, named, count=16, seed=1)
        assert not notices
    _, [read] = await made(generator, "an apple", count=16, seed=1)
    assert set(read.removeprefix("Read as: ").split(", ")) <= {"red apple", "green apple", "pineapple", "pear"}
    first, _ = await made(generator, "a fruit", count=4, seed=1)
    again, _ = await made(generator, "a fruit", seed=3)
    assert [first[2].png] == [one.png for one in again]


async def test_a_killed_process_is_said_and_not_waited_for(generator: ImageGenerator) -> None:
    for child in psutil.Process().children(recursive=True):
        if "chatbot.engines.aigc_server" in child.cmdline():
            child.kill()
    with pytest.raises(ModelError, match="process ended"):
        await asyncio.wait_for(made(generator, "a cat"), timeout=20)
    assert not generator.alive


async def test_a_damaged_model_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        await AigcGenerator.load(tmp_path, tmp_path, "broken@1")
