"""Reads the files to learn from, one sample after the other: text, JSON lines, JSON and Parquet.

Nothing is read whole, however long its lines are, but the array of a .json file.

Every function raises UserError, naming file and line, where a file is not what it should be.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chatbot.errors import UserError
from chatbot.gpt.samples import Dialogue, Preference, Role, Sample, Text, Turn

MOST_LINE = 64 * 2**20
"""Bytes of a line of JSON: it has to be read whole."""

TEXT_SIZE = 4_000
"""Characters after which a text file is cut, at the next empty line: parts of it are held out."""

_LONGEST_TEXT = 4 * TEXT_SIZE
_BLOCK = 2**20
_BREAK = "<|endoftext|>"

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


# text


def _text(path: Path) -> Iterator[Sample]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    held, line, began, encoded = "", 1, 1, 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            try:
                held += decoder.decode(block, final=not file.peek(1))
            except UnicodeDecodeError as error:
                at = encoded + error.object[: error.start].count(b"\n")
                raise UserError(_not_utf8(path, at, error)) from None
            encoded += block.count(b"\n")
            if "\0" in held:
                raise UserError(f"{path}, line {line + held[: held.index(chr(0))].count(chr(10))}: it is no text.")
            held = held.removeprefix("\ufeff") if line == 1 else held
            while (cut := _end_of_text(held)) is not None:
                text, held = held[:cut], held[cut:]
                line += text.count("\n")
                if text.replace(_BREAK, "").strip():
                    yield Text(text.replace(_BREAK, "").strip(), f"{path}, line {began}")
                began = line
    if held.replace(_BREAK, "").strip():
        yield Text(held.replace(_BREAK, "").strip(), f"{path}, line {began}")


def _end_of_text(held: str) -> int | None:
    """Where the first text of `held` ends, if that can be told yet."""
    mark = held.find(_BREAK)
    if 0 <= mark < TEXT_SIZE:
        return mark + len(_BREAK)
    for between in ("\n\n", "\n", " "):
        cut = held.find(between, TEXT_SIZE, _LONGEST_TEXT)
        if cut >= 0 and (between == "\n\n" or len(held) >= _LONGEST_TEXT):
            return cut + len(between)
    return _LONGEST_TEXT if len(held) >= _LONGEST_TEXT else None


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
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path, number, error)) from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise UserError(f"{path}, line {number}: it is no JSON: {reason}.") from None


def _json(path: Path) -> Iterator[Sample]:
    with path.open("rb") as file:
        head = file.read(1024).lstrip()
    if not head.startswith(b"["):  # an entry a line, whatever it is called
        yield from _jsonl(path)
        return
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path, 1 + error.object[: error.start].count(b"\n"), error)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: it is no JSON: {error.msg}.") from None
    for number, entry in enumerate(entries, start=1):
        yield _sample(entry, f"{path}, entry {number}")


def _parquet(path: Path) -> Iterator[Sample]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                filled = {name: value for name, value in row.items() if value is not None}
                yield _sample(filled, f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None


_READERS = {".txt": _text, ".md": _text, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}


# what an entry says


def _sample(entry: Any, place: str) -> Sample:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{place}: it is neither a text nor a conversation.")
    for name in ("messages", "conversations", "conversation"):
        if name in entry:
            return _dialogue(entry[name], entry.get("system"), place)
    if "chosen" in entry or "completion" in entry:
        return _preference(entry, place)
    if "instruction" in entry and "output" in entry:  # Alpaca
        asked = "\n\n".join(_string(entry.get(name, ""), place, name) for name in ("instruction", "input"))
        reply = _string(entry["output"], place, "output")
        said = [{"role": "user", "content": asked.strip()}, {"role": "assistant", "content": reply}]
        return _dialogue(said, entry.get("system"), place)
    if "text" in entry:
        return Text(_string(entry["text"], place, "text"), place)
    raise UserError(
        f"{place}: it has neither messages, conversations, instruction and output, chosen and rejected, prompt, "
        "completion and label, nor text."
    )


def _preference(entry: dict[str, Any], place: str) -> Preference:
    """trl's formats: a prompt, and which of two replies to it was chosen, or one with a label of true or false."""
    names = ("chosen", "rejected") if "chosen" in entry else ("completion",)
    sides = [_said(entry.get(name), place, "assistant") for name in names]
    before = _said(entry.get("prompt", []), place, "user")
    for turns in sides:
        if not turns or turns[-1].role != "assistant" or not turns[-1].content.strip():
            raise UserError(f"{place}: what was chosen or not does not end with a reply of the assistant.")
    if any(len(turns) > 1 for turns in sides):  # the conversation stands in each, with or without a prompt beside it
        before = sides[0][:-1]
        if any(turns[:-1] != before for turns in sides):
            raise UserError(f"{place}: the replies are to different conversations.")
    if not before or before[-1].role != "user":
        raise UserError(f"{place}: nobody asks what the replies could answer.")
    asked = tuple(Turn(turn.role, turn.content, learns=False) for turn in before)
    replies = [turns[-1].content for turns in sides]
    if len(replies) == 1:
        if not isinstance(label := entry.get("label"), bool):
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
