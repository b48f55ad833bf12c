"""Reads the files to learn from, one sample after the other: text, JSON lines, JSON and Parquet.

Nothing is read whole, however long its lines are.

Every function raises UserError, naming file and line, where a file is not what it should be.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chatbot.errors import UserError
from chatbot.gpt.cutting import BREAK, end_of_part
from chatbot.gpt.json_array import DECODER, entries
from chatbot.gpt.samples import Dialogue, Preference, Role, Sample, Text, Turn

MOST_LINE = 64 * 2**20
"""Bytes of a line of JSON, or characters of an entry of an array: it has to be read whole."""

_BLOCK = 2**16

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


def read(paths: Iterable[Path]) -> Iterator[Sample]:
    """Every sample of some files, and of the files in folders among them."""
    for path in paths:
        yield from _read(path)


def files(paths: Iterable[Path]) -> list[Path]:
    """The files that are meant: folders stand for what is in them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in _READERS and one.is_file())
            if not inside:
                raise UserError(f"There is nothing to learn from in {path}: no {', '.join(_READERS)}.")
            found += inside
        elif not path.exists():
            raise UserError(f"There is no file {path}.")
        elif path.stat().st_size == 0:
            raise UserError(f"{path} is empty.")
        else:
            found.append(path)
    return found


def _read(path: Path) -> Iterator[Sample]:
    try:
        yield from _READERS.get(path.suffix.lower(), _text)(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None


def _decoded(path: Path) -> Iterator[str]:
    """The text of a file, in blocks, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            try:
                text = decoder.decode(block, final=not file.peek(1))
            except UnicodeDecodeError as error:
                raise UserError(_not_utf8(path, line + error.object[: error.start].count(b"\n"), error)) from None
            line += block.count(b"\n")
            yield text


# text


def _text(path: Path) -> Iterator[Sample]:
    held, line = "", 1
    for block in _decoded(path):
        held += block
        if "\0" in held:
            raise UserError(f"{path}, line {line + held[: held.index(chr(0))].count(chr(10))}: it is no text.")
        while (end := end_of_part(held)) is not None:
            part, held = held[:end], held[end:]
            yield from _part(part, f"{path}, line {line}")
            line += part.count("\n")
    yield from _part(held, f"{path}, line {line}")


def _part(text: str, place: str) -> Iterator[Sample]:
    if text := text.removesuffix(BREAK).strip():
        yield Text(text, place)


# JSON


def _jsonl(path: Path) -> Iterator[Sample]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            place = f"{path}, line {number}"
            if len(line) >= MOST_LINE and not line.endswith(b"\n"):
                raise UserError(
                    f"{place}: it is longer than {MOST_LINE // 2**20} MiB; one sample stands on one line."
                )
            if line.strip():
                yield _sample(_parsed(line, path, number), place)


def _parsed(line: bytes, path: Path, number: int) -> Any:
    try:
        return DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path, number, error)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: it is no JSON: {error.msg}.") from None
    except RecursionError:
        raise UserError(f"{path}, line {number}: it is nested too deeply.") from None


def _json(path: Path) -> Iterator[Sample]:
    if not next(_decoded(path), "").lstrip().startswith("["):  # an entry a line, whatever it is called
        yield from _jsonl(path)
        return
    for number, entry in enumerate(entries(_decoded(path), path, MOST_LINE), start=1):
        yield _sample(entry, f"{path}, entry {number}")


def _parquet(path: Path) -> Iterator[Sample]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_struct_array():
                number += 1
                yield _sample(row.as_py(), f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    except (ValueError, OverflowError) as error:  # a text that is not UTF-8, a date that is none
        raise UserError(f"{path}, row {number}: it cannot be read: {error}.") from None


_READERS = {".txt": _text, ".md": _text, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}


# what an entry says


def _sample(entry: Any, place: str) -> Sample:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{place}: it is neither a text nor a conversation.")
    entry = {name: value for name, value in entry.items() if value is not None}
    for name in ("messages", "conversations", "conversation"):
        if name in entry:
            return _dialogue(entry[name], entry.get("system"), place)
    if "chosen" in entry or "completion" in entry:
        return _replies(entry, place)
    if "instruction" in entry and "output" in entry:  # Alpaca
        asked = "\n\n".join(_string(entry.get(name, ""), place, name) for name in ("instruction", "input"))
        reply = _string(entry["output"], place, "output")
        said = [{"role": "user", "content": asked.strip()}, {"role": "assistant", "content": reply}]
        return _dialogue(said, entry.get("system"), place)
    if "text" in entry:
        return Text(_string(entry["text"], place, "text"), place)
    raise UserError(
        f"{place}: it has neither messages, conversations, instruction and output, prompt and completion, chosen and "
        "rejected, nor text."
    )


def _replies(entry: dict[str, Any], place: str) -> Preference | Dialogue:
    """trl's formats: a prompt and a reply to learn, or one with a label of true or false, or one chosen, one not."""
    names = ("chosen", "rejected") if "chosen" in entry else ("completion",)
    sides = [_said(entry.get(name), place, "assistant") for name in names]
    before = _said(entry.get("prompt", []), place, "user")
    for name, turns in zip(names, sides, strict=True):
        if not turns or turns[-1].role != "assistant" or not turns[-1].content.strip():
            raise UserError(f"{place}: {name} does not end with a reply of the assistant.")
    if any(len(turns) > 1 for turns in sides):
        said = sides[0][:-1]
        if any(turns[:-1] != said for turns in sides):
            raise UserError(f"{place}: the replies are to different conversations.")
        # It goes on from the prompt, or the conversation stands in each, with or without a prompt beside it.
        before = (*before, *said) if said[0].role == "assistant" else said
    if not before or before[-1].role != "user":
        raise UserError(f"{place}: nobody asks what the replies could answer.")
    asked = tuple(Turn(turn.role, turn.content, learns=False) for turn in before)
    replies = [turns[-1].content for turns in sides]
    if len(replies) == 1:
        if "label" not in entry:
            return Dialogue((*asked, Turn("assistant", replies[0])), place)
        if not isinstance(label := entry["label"], bool):
            raise UserError(f"{place}: its label is neither true nor false.")
        return Preference(asked, replies[0] if label else None, None if label else replies[0], place)
    if replies[0] == replies[1]:
        raise UserError(f"{place}: the reply that was chosen and the one that was not are the same.")
    return Preference(asked, replies[0], replies[1], place)


def _said(value: Any, place: str, role: Role) -> tuple[Turn, ...]:
    """Messages, or a text that is one of `role`."""
    if isinstance(value, list):
        return _turns(value, None, place)
    return (Turn(role, _string(value, place, "a prompt or reply")),)


def _dialogue(said: Any, system: Any, place: str) -> Dialogue:
    turns = _turns(said, system, place)
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise UserError(f"{place}: the assistant says nothing in this conversation; there is nothing to learn.")
    if not any(turn.role == "user" for turn in turns):
        raise UserError(f"{place}: nobody asks the assistant anything in this conversation.")
    return Dialogue(turns, place)


def _turns(said: Any, system: Any, place: str) -> tuple[Turn, ...]:
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in said):
        raise UserError(f"{place}: its messages are no list of objects.")
    turns = [Turn("system", _string(system, place, "system"))] if system else []
    for number, one in enumerate(said, start=1):
        name = str(one.get("role", one.get("from", ""))).lower()
        role = _ROLES.get(name)
        if role is None:
            raise UserError(f"{place}: message {number} has the role '{name}'; it is system, user or assistant.")
        if role == "system" and turns:
            raise UserError(f"{place}: message {number} is of the system, which speaks first or not at all.")
        content = _string(one.get("content", one.get("value")), place, f"message {number}")
        if turns and turns[-1].role == role:  # said in two pieces
            turns[-1] = Turn(role, f"{turns[-1].content}\n\n{content}")
        else:
            turns.append(Turn(role, content))
    return tuple(turns)


def _string(value: Any, place: str, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {what} is no text.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{place}: {what} holds half a character (a lone surrogate).")
    return value


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> str:
    return (
        f"{path}, line {line}: it is not UTF-8 (0x{error.object[error.start]:02x}); "
        "convert the file first, for example with `iconv -t UTF-8`."
    )
