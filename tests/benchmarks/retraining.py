"""What a retraining costs, and what those who chat feel of it: `python -m tests.benchmarks.retraining HOME`.

Prints the stages before the training over ever more conversations; replies of the default model alone and beside a
retraining that was begun from a bot; and how long it takes from a promotion in another process to the first character
of the version promoted. HOME holds a finished retraining of the default model; it is copied.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from sqlalchemy import insert, update

from chatbot.chat import ChatService
from chatbot.engines.weights import transformers_folder
from chatbot.events import Finished, TextDelta
from chatbot.gpt import prepare
from chatbot.gpt.corpus import Report, own_conversations
from chatbot.gpt.options import finetuning, preferring
from chatbot.gpt.preferences import own_preferences
from chatbot.retrain.background import Background
from chatbot.session import open_service
from chatbot.settings import Settings
from chatbot.store import Store, open_store
from storage.database import insert_rows
from storage.records import Conversation
from storage.schema import conversations, feedback, messages
from tests.benchmarks.history import texts

SIZES = (1_000, 10_000, 100_000)
TURNS, REPLIES = 2, 60
DEFAULT = "smollm2-135m-instruct@q4_1"
PROMPT = "Tell me what one can do with {} apples, in a few sentences."


async def fill(store: Store, count: int) -> None:
    """Conversations of two turns; in every tenth a second reply was asked for, and the first found bad."""
    text = texts()
    await store.people.allow_learning("local", True)
    async with store.database.write() as connection:
        for first in range(0, count, 500):
            begun, said, rated = [], [], []
            for _ in range(first, min(count, first + 500)):
                conversation = Conversation.new("")
                parent = None
                begun.append(conversation)
                for turn in range(TURNS):
                    asked = _row(conversation, parent, "user", text())
                    replies = [_row(conversation, str(asked["id"]), "assistant", text())]
                    if turn == 0 and len(begun) % 10 == 0:
                        moment = {"created": conversation.created, "updated": conversation.created}
                        whose = {"message_id": replies[0]["id"], "person_id": "local"}
                        rated.append({**whose, "value": -1, "note": "", **moment})
                        replies.append(_row(conversation, str(asked["id"]), "assistant", text()))
                    said += [asked, *replies]
                    parent = str(replies[-1]["id"])
                begun[-1] = replace(conversation, leaf_id=parent)
            await insert_rows(connection, conversations, [{**_fields(one), "leaf_id": None} for one in begun])
            await insert_rows(connection, messages, said)
            for one in begun:
                await connection.execute(
                    update(conversations).where(conversations.c.id == one.id).values(leaf_id=one.leaf_id)
                )
            if rated:
                await connection.execute(insert(feedback), rated)


def _row(conversation: Conversation, parent: str | None, role: str, text: str) -> dict[str, object]:
    return {
        "id": os.urandom(8).hex(), "conversation_id": conversation.id, "parent_id": parent, "role": role,
        "text": text, "status": "complete", "created": conversation.created,
    }  # fmt: skip


def _fields(conversation: Conversation) -> dict[str, object]:
    return {name: getattr(conversation, name) for name in Conversation.__dataclass_fields__}


async def stages(count: int, folder: Path) -> list[float]:
    """Seconds of reading the conversations, reading what people thought, and preparing each for the training."""
    settings = Settings.load(home=folder / str(count))
    async with open_store(settings) as store:
        await fill(store, count)
        base = await transformers_folder(store.registry, settings, await store.registry.current("gpt"), _silent)
        marks = [time.perf_counter()]
        own = await own_conversations(store, Report())
        marks.append(time.perf_counter())
        preferred = await own_preferences(store)
        marks.append(time.perf_counter())
    shape = {"base": "default", "base_folder": str(base), "conversations": True}
    for options, some in ((finetuning("lora", **shape), own), (preferring(**shape), preferred)):
        prepare.prepare(options, folder / f"{count}-{options.stage}", some, Report(), _silent, _silent)
        marks.append(time.perf_counter())
    return np.diff(marks).tolist()


async def replies(service: ChatService, count: int) -> tuple[list[float], list[float]]:
    """Seconds to the first character and from there to the end, of replies to the same questions each time."""
    firsts, rest = [], []
    for number in range(count):
        began, first = time.perf_counter(), 0.0
        async for event in service.send(None, PROMPT.format(number)):
            if isinstance(event, TextDelta) and not first:
                first = time.perf_counter()
        firsts.append(first - began)
        rest.append(time.perf_counter() - first)
    return firsts, rest


async def beside(home: Path) -> None:
    """Replies alone, and while a retraining is at its training."""
    settings = Settings.load(home=home, model=DEFAULT, max_tokens=40, temperature=0.0)
    async with open_service(settings) as service:
        await replies(service, 3)
        alone = await replies(service, REPLIES)
        data = home / "chats.jsonl"
        data.write_text("".join(json.dumps(_chat(number)) + "\n" for number in range(2_000)), encoding="utf-8")
        Background(home).start(["gpt", "--data", str(data), "--steps", "400", "--no-promote"], "nobody")
        while not list((home / "retrain").glob("gpt-*/run.json")):
            await asyncio.sleep(0.5)
        await asyncio.sleep(20)
        busy = await replies(service, REPLIES)
    for process in psutil.Process().children(recursive=True):
        process.kill()
    for what, one, other in zip(("first character", "the rest of 40 tokens"), alone, busy, strict=True):
        p95 = [float(np.quantile(some, 0.95)) for some in (one, other)]
        print(
            f"| {what} | {median(one):.3f} s, p95 {p95[0]:.3f} | {median(other):.3f} s, p95 {p95[1]:.3f} "
            f"| {p95[1] / p95[0]:.2f} |"
        )


def _chat(number: int) -> dict[str, object]:
    said = (("user", f"What is {number}?"), ("assistant", f"It is {number}, and {number} it stays."))
    return {"messages": [{"role": role, "content": text} for role, text in said]}


async def promoted(home: Path, ref: str, other: str) -> list[float]:
    """Seconds from the end of `chatbot models promote` in another process to the first character of that version."""
    found = []
    async with open_service(Settings.load(home=home, max_tokens=20, temperature=0.0)) as service:
        await replies(service, 2)
        for wanted in (other, ref, other, ref):  # `ref` answers at first
            command = [sys.executable, "-m", "chatbot", "models", "use", wanted]
            await asyncio.to_thread(
                subprocess.run, command, check=True, env=os.environ | {"CHATBOT_HOME": str(home)}, capture_output=True
            )
            began, first = time.perf_counter(), 0.0
            async for event in service.send(None, PROMPT.format(2)):
                if isinstance(event, TextDelta) and not first:
                    first = time.perf_counter()
                if isinstance(event, Finished):
                    assert event.model == wanted, event.model
            found.append(first - began)
    return found


def _silent(*said: object) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print("| conversations | read | preferences | prepare: fine-tune | prepare: prefer |\n|---|---|---|---|---|")
        for count in arguments.sizes:
            seconds = asyncio.run(stages(count, Path(name)))
            print(f"| {count:,} | {' | '.join(f'{one:.2f} s' for one in seconds)} |", flush=True)
        home = Path(name, "home")
        shutil.copytree(arguments.home, home)
        print("\n| replies | alone | beside a retraining | p95 ratio |\n|---|---|---|---|")
        asyncio.run(beside(home))
        seconds = asyncio.run(promoted(home, "retrained@1", DEFAULT))
        print(f"\nPromoted to first character: {', '.join(f'{one:.2f} s' for one in seconds)}")


if __name__ == "__main__":
    main()
