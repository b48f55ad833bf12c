"""The entries of a JSON array, one after the other: the array may be larger than memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from chatbot.errors import UserError

DECODER = json.JSONDecoder(parse_int=float)  # no number is learned, and int() refuses those of very many digits


def entries(blocks: Iterator[str], path: Path, most: int) -> Iterator[Any]:
    """The entries of an array, which begins in the first of the blocks of text that a file was cut into.

    Raises:
        UserError: it is no JSON, or an entry is longer than `most` characters.
    """
    held, line = next(blocks), 1
    at = held.index("[")
    if held.startswith("]", after := _past_space(held, at + 1)):
        at = after
    while held[at] != "]":  # it is [ or a comma
        try:
            entry, at = _entry(held, at + 1)
        except RecursionError:
            begin = line + held.count("\n", 0, _past_space(held, at + 1))
            raise UserError(f"{path}, line {begin}: it is nested too deeply.") from None
        except json.JSONDecodeError as error:  # or there is more to come: as much again is looked at with it
            wrong = f"{path}, line {line + error.lineno - 1}: it is no JSON: {error.msg}"
            line += held.count("\n", 0, at)
            held, at = held[at:], 0
            if len(held) > most:
                raise UserError(f"{wrong}, or an entry of more than {most // 2**20} MiB.") from None
            more = "".join(islice(blocks, 1 + len(held) // 2**16))
            if not more:
                raise UserError(f"{wrong}.") from None
            held += more
        else:
            yield entry
    if held[at + 1 :].strip() or any(block.strip() for block in blocks):
        raise UserError(f"{path}, line {line + held.count(chr(10), 0, at)}: something follows the end of the array.")


def _entry(held: str, at: int) -> tuple[Any, int]:
    """The entry at a place, and the place of what stands behind it: a comma, or the end of the array."""
    entry, end = DECODER.raw_decode(held, _past_space(held, at))
    end = _past_space(held, end)
    if not held.startswith((",", "]"), end):
        raise json.JSONDecodeError("Expecting ',' delimiter", held, end)
    return entry, end


def _past_space(held: str, at: int) -> int:
    while held[at : at + 1].isspace():
        at += 1
    return at
