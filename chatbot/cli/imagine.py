"""`chatbot imagine`: a picture from a sentence, as a PNG with a transparent background."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import aclosing
from pathlib import Path

from chatbot.cli.progress import ProgressPrinter, say
from chatbot.cli.run import run_async
from chatbot.errors import UserError

HELP = "make a picture from a sentence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", help="what shall be in the picture")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.png", help="where to write it")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="more than one: FILE-1.png and so on")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same picture")
    parser.add_argument("--style", default="", metavar="NAME", help="one of the model's styles; none: any")
    parser.add_argument(
        "--model", default="", metavar="NAME", help="NAME[@VERSION] of a picture model, or its folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    text = " ".join(arguments.text).strip()
    if not text:
        raise UserError('Say what shall be in the picture: chatbot imagine "a red heart" -o heart.png')
    if arguments.out.suffix.lower() != ".png":
        raise UserError(f"{arguments.out} does not end in .png, and PNG is what is written.")
    if not arguments.out.expanduser().resolve().parent.is_dir():
        raise UserError(f"There is no folder {arguments.out.expanduser().resolve().parent}.")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**32:
        raise UserError("A seed is a number from 0 to 4294967295.")
    run_async(_imagine(arguments, text))
    return 0


async def _imagine(arguments: argparse.Namespace, text: str) -> None:
    from chatbot.engines.base import Picture
    from chatbot.engines.load_pictures import load_generator
    from chatbot.settings import Settings
    from chatbot.store import open_store

    began = time.monotonic()
    settings = Settings.load()
    files: list[Path] = []
    notices: list[str] = []
    rows: list[dict[str, object]] = []
    with ProgressPrinter() as progress:
        async with open_store(settings) as store:
            generator = await load_generator(store.registry, settings, progress.tell, arguments.model)
        loaded = time.monotonic()
        try:
            made = generator.imagine(text, count=arguments.count, seed=arguments.seed, style=arguments.style)
            async with aclosing(made) as answers:
                async for answer in answers:
                    progress.close()
                    if not isinstance(answer, Picture):
                        notices.append(answer)
                        say(answer)
                        continue
                    path = _path(arguments.out, len(files), arguments.count)
                    _write(path, answer.png)
                    files.append(path)
                    rows.append({"file": str(path), "seed": answer.seed, "style": answer.style})
                    if not arguments.json:
                        print(path)
        finally:
            await generator.close()
    if arguments.json:
        timings = {"load_s": round(loaded - began, 3), "imagine_s": round(time.monotonic() - loaded, 3)}
        answer_row = {
            "prompt": text,
            "model": generator.name,
            "pictures": rows,
            "notices": notices,
            "timings": timings,
        }
        print(json.dumps(answer_row, ensure_ascii=False))


def _path(out: Path, number: int, count: int) -> Path:
    out = out.expanduser()
    return out if count == 1 else out.with_name(f"{out.stem}-{number + 1}{out.suffix}")


def _write(path: Path, png: bytes) -> None:
    part = path.with_name(path.name + ".partial")
    try:
        part.write_bytes(png)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None
