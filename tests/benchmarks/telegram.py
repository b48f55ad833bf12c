"""The Telegram bot under load, over HTTP against the emulated server: `python -m tests.benchmarks.telegram [PART]`.

The scripted model answers at a fixed speed, so that what is measured is the bot. Everything runs on one machine: the
bot, the server and what drives both share its cores.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from chatbot.engines.base import ChatMessage, GenerationOptions
from chatbot.engines.fake import ScriptedResponder, asked_pace
from chatbot.events import TextDelta
from chatbot.session import open_service
from chatbot.settings import Settings
from tests.telegram.world import Bot, Telegram, is_whole, nursery, person

CHATS = 200
SAID = "count to 30 every 0.1 s after 2 s"
FIRST_CHAT = 10_000


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def shown(values: Sequence[float]) -> str:
    return " / ".join(f"{percentile(values, percent):.3f}" for percent in (50, 95, 99))


@contextmanager
def running(**settings: str) -> Iterator[tuple[Telegram, Bot, Path]]:
    """A bot in a home of its own."""
    with tempfile.TemporaryDirectory() as name, nursery() as bots:
        os.environ["CHATBOT_HOME"] = name
        telegram = Telegram()
        bot = Bot(
            telegram, Path(name) / "bot.log", bots, {f"CHATBOT_{key}": value for key, value in settings.items()}
        )
        try:
            bot.start("warning")
            telegram.say("warm up")
            telegram.reply("warm up")
            yield telegram, bot, Path(name)
        finally:
            bot.kill()
            telegram.close()


def message(chat: int, text: str, number: int = 1) -> dict[str, Any]:
    kind = "private" if chat > 0 else "group"
    return {
        "message": {
            "message_id": number,
            "date": 0,
            "chat": {"id": chat, "type": kind},
            "from": person(abs(chat)),
            "text": text,
        }
    }


def first_piece() -> list[str]:
    """Seconds until something of the reply is there, all chats asking at once."""
    engine = asyncio.run(_engine())
    core = asyncio.run(_core())
    with running() as (telegram, _, _):
        pushed = telegram.control("push", updates=[message(FIRST_CHAT + n, SAID) for n in range(CHATS)])
        firsts: dict[int, float] = {}

        def all_have_begun() -> bool:
            for call in telegram.calls("sendMessageDraft"):
                firsts.setdefault(call["chat_id"], call["at"])
            return len(firsts.keys() & set(range(FIRST_CHAT, FIRST_CHAT + CHATS))) == CHATS

        time.sleep(6)  # to look costs the server time
        telegram.wait(all_have_begun, 120, every=1.0)
        given = telegram.control("given")
        ours = [firsts[FIRST_CHAT + n] - given[str(update)] for n, update in enumerate(pushed)]
    alone, through, whole = (percentile(values, 95) for values in (engine, core, ours))
    return [
        f"| first piece, {CHATS} chats at once: the engine alone | {shown(engine)} s | |",
        f"| the same through the core, no Telegram | {shown(core)} s | {through / alone:.2f} |",
        f"| the same through the bot, over the engine | {shown(ours)} s | {whole / alone:.2f} (goal: 1.2) |",
        f"| the same, over the core | | {whole / through:.2f} |",
    ]


async def _engine() -> list[float]:
    responder = ScriptedResponder(delay=asked_pace)

    async def one() -> float:
        began = time.perf_counter()
        first = 0.0
        async for _ in responder.reply([ChatMessage("user", SAID)], GenerationOptions(max_tokens=1024)):
            first = first or time.perf_counter() - began
        return first

    return list(await asyncio.gather(*(one() for _ in range(CHATS))))


async def _core() -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["CHATBOT_HOME"] = home
        async with open_service(Settings.load(model="fake")) as service:

            async def one() -> float:
                began = time.perf_counter()
                first = 0.0
                async for event in service.send(None, SAID):
                    if isinstance(event, TextDelta):
                        first = first or time.perf_counter() - began
                return first

            await one()
            return list(await asyncio.gather(*(one() for _ in range(CHATS))))


def flooding() -> list[str]:
    """Seconds until the whole answer is out in 40 chats, alone and while one more sends 1,000 messages."""

    def round_of(telegram: Telegram, base: int, flood: bool) -> list[float]:
        took = []
        if flood:
            telegram.control("push", updates=[message(9, f"flood {number}", number) for number in range(1_000)])
        for turn in range(5):
            pushed = telegram.control(
                "push", updates=[message(base + n, f"turn {turn}: count to 5 every 0.1 s", turn) for n in range(40)]
            )

            def all_are_out(turn: int = turn) -> bool:
                out = [one for one in telegram.sent(None) if f"turn {turn}:" in one.get("text", "")]
                return sum(one["chat"]["id"] >= base for one in out) >= 40

            telegram.wait(all_are_out, 120, every=0.5)
            given = telegram.control("given")
            out = {
                one["chat"]["id"]: one["at"] for one in telegram.sent(None) if f"turn {turn}:" in one.get("text", "")
            }
            took += [out[base + n] - given[str(update)] for n, update in enumerate(pushed)]
        return took

    with running() as (telegram, _, _):
        alone = round_of(telegram, 20_000, False)
        flooded = round_of(telegram, 30_000, True)
        refused = sum("no more can wait" in text for text in telegram.texts(9))
        answered = sum(map(is_whole, telegram.sent(9)))
    return [
        f"| whole answer in 40 chats, nobody floods | {shown(alone)} s | |",
        f"| the same while one chat sends 1,000 messages | {shown(flooded)} s "
        f"| {percentile(flooded, 95) / percentile(alone, 95):.2f} (goal: 1.1) |",
        f"| of the flood: answered so far, told that no more can wait | {answered}, {refused} | |",
    ]


def kills(count: int = 30) -> list[str]:
    """kill -9 at random moments while 20 chats talk."""
    chance = random.Random(6)
    with running() as (telegram, bot, _):
        said: dict[int, list[str]] = {}
        for number in range(count):
            updates = []
            for chat in chance.sample(range(40_000, 40_060), 20):
                text = f"m{number}: count to {chance.randrange(3, 20)} every 0.02 s"
                said.setdefault(chat, []).append(text)
                updates.append(message(chat, text, number + 1))
            telegram.control("push", updates=updates)
            time.sleep(chance.uniform(0.0, 1.2))
            bot.kill()
            bot.start("warning")
        wanted = sum(map(len, said.values()))

        def came() -> dict[int, list[str]]:
            found: dict[int, list[str]] = {}
            for one in telegram.sent(None):
                if is_whole(one):
                    found.setdefault(one["chat"]["id"], []).append(one["text"].split()[2])
            return found

        telegram.wait(
            lambda: sum(len(set(texts)) for chat, texts in came().items() if chat in said) >= wanted, 180, every=1.0
        )
        found = came()
        lost = sum(len({text.split()[0] for text in texts} - set(found[chat])) for chat, texts in said.items())
        disorder = sum(
            [text for text, _ in groupby(found[chat])] != [text.split()[0] for text in texts]
            for chat, texts in said.items()
        )
        twice = sum(n - 1 for chat in said for n in Counter(found[chat]).values())
        noted = len(bot.logged("an answer may come twice: a process died between sending and noting it"))
    return [
        f"| {count} kills at random moments, {wanted} messages in {len(said)} chats: lost | {lost} | goal: 0 |",
        f"| chats out of order | {disorder} | goal: 0 |",
        f"| came twice; said in the log that it may | {twice}; {noted} | |",
    ]


def fuzz(count: int = 10_000) -> list[str]:
    """Updates that are not as they should be."""
    chance = random.Random(7)
    odd: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.choice([True, -1, 2**70, 1.5, "", "\ud800", "\0", "x" * 5_000, [], {}, [[[]]], {"id": {}}]),
        lambda: "".join(chance.choices(string.printable + "😀界\u202e", k=chance.randrange(60))),
        lambda: "/" + "".join(chance.choices(string.ascii_letters + " @_", k=8)),
        lambda: f"{chance.choice(['retry', 'next', 'show', 'agree', 'good'])}:{chance.randrange(10**6)}",
    ]

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items() if chance.random() > 0.06}
        return chance.choice(odd)() if chance.random() < 0.25 else value

    def update() -> dict[str, Any]:
        chat = 50_000 + chance.randrange(300)
        made = message(chat, "hello", chance.randrange(10**6))
        if chance.random() < 0.3:
            made = {"callback_query": {"id": "1", "from": person(chat), "data": "x:y", **made}}
        if chance.random() < 0.1:
            made = {"edited_message": made.get("message", {})}
        return dict(spoil(made))

    with running(TELEGRAM_PENDING="3") as (telegram, bot, home):
        for _ in range(count // 100):
            telegram.control("push", updates=[update() for _ in range(100)])
        telegram.wait(lambda: telegram.look()["unconfirmed"] == 0, 300, every=0.5)
        telegram.say("still there?")
        telegram.reply("still there?", seconds=120)
        failed = len(bot.logged("an answer failed"))
        traces = (home / "error.log").read_text() if (home / "error.log").exists() else ""
        alive = psutil.pid_exists(bot.pid)
    return [
        f"| {count:,} malformed updates: crashes | {int(not alive)} | goal: 0 |",
        f"| of them, answers that failed and were apologised for | {failed}, {traces.count('Traceback')} traces | |",
    ]


def memory(count: int = 50_000) -> list[str]:
    """Memory and tables while updates go by; one in fifty is answered by the model, the others are stored, refused
    (their people may not talk) and done."""
    sizes = []
    with running(TELEGRAM_ALLOW=",".join(str(n) for n in (1001, *range(60_000, 60_100)))) as (telegram, bot, home):
        telegram.control("set", record=False)
        process = psutil.Process(bot.pid)
        for begin in range(0, count, 500):
            updates = [message(60_000 + begin // 5 % 100 + n, f"hello {begin}", begin + n) for n in range(10)]
            updates += [message(-70_000 - n % 97, "@emulated_bot hello", begin + n) for n in range(490)]
            telegram.control("push", updates=updates)
            telegram.wait(lambda: telegram.look()["unconfirmed"] == 0, 120)
            if begin % 5_000 == 0:
                telegram.control("set", sent=[])
                sizes.append(process.memory_info().rss / 2**20)
        telegram.wait(lambda: _waiting(home) == 0, 300, every=0.5)
        sizes.append(process.memory_info().rss / 2**20)
        with sqlite3.connect(home / "chatbot.db") as connection:
            [rows] = connection.execute("SELECT count(*) FROM inbox").fetchone()
    half = len(sizes) // 2
    return [
        f"| memory over {count:,} updates, MiB | {' '.join(f'{size:.0f}' for size in sizes)} | |",
        f"| median of the second half over the first | {median(sizes[half:]):.1f} / {median(sizes[1:half]):.1f} "
        f"| {median(sizes[half:]) / median(sizes[1:half]):.3f} (goal: flat) |",
        f"| rows left in the inbox | {rows:,} | bounded by 4,352 |",
    ]


def _waiting(home: Path) -> int:
    with sqlite3.connect(home / "chatbot.db") as connection:
        return int(connection.execute("SELECT count(*) FROM inbox WHERE state <> 'done'").fetchone()[0])


PARTS: dict[str, Callable[[], list[str]]] = {
    "first": first_piece,
    "flood": flooding,
    "kills": kills,
    "fuzz": fuzz,
    "memory": memory,
}


def measure(parts: Sequence[str] = tuple(PARTS)) -> str:
    """A Markdown table; percentiles are 50 / 95 / 99."""
    lines = ["| Telegram bot, scripted model | p50 / p95 / p99, or count | ratio of p95 |", "|---|---|---|"]
    for part in parts:
        lines += PARTS[part]()
    return "\n".join(lines)


if __name__ == "__main__":
    print(measure(sys.argv[1:] or tuple(PARTS)))
