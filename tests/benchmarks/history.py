"""What things cost with ever more history stored: `python -m tests.benchmarks.history`.

Half of the messages stand in one conversation, on one branch; the others in conversations of twenty.
"Came" are results; what was really read shows in the steps of SQLite's virtual machine.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import event, insert
from sqlalchemy.engine import Engine

from chatbot.context import build_context
from chatbot.engines.fake import ScriptedResponder
from chatbot.settings import Settings
from chatbot.store import open_store
from storage.database import Database, insert_rows
from storage.records import Conversation
from storage.schema import conversations, messages
from storage.search import Query

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 9
PAGE = 20
YEAR = 365
"""Days over which everything was said."""
HAN = [chr(0x4E00 + number) for number in range(3_000)]
WORST = ("the", "the zq", "the c#", "and 書", '"the and"', '"et ta"', f"{HAN[0]} e", "e 龥", f"the {HAN[0]}")
"""Common words beside rare ones, phrases of common words, and common words that never meet."""
COMMON = ("the", "of", "and", "a", "to", "in", "is", "it", "that", "for")
SHORT = "a conversation to be deleted"


class Steps:
    """Counts what SQLite's virtual machine does, in thousands of instructions."""

    def __init__(self) -> None:
        self.count = 0
        event.listen(Engine, "connect", self._connected)

    def _connected(self, connection: Any, record: Any) -> None:
        connection.run_async(lambda driver: driver.set_progress_handler(self._step, 1_000))

    def _step(self) -> int:
        self.count += 1
        return 0


def texts(seed: int = 1) -> Callable[[], str]:
    """Gives sentences of invented words, every fourth a common one of English, and one sentence in seven in Han
    characters, as unevenly used as real ones are."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("etaoinshrdlucmfwypvbgkjqxz", k=chance.randint(2, 9))) for _ in range(8_000)]
    weights = [1 / (rank + 1) for rank in range(len(HAN))]

    def text() -> str:
        if chance.random() < 0.15:
            return "".join(chance.choices(HAN, weights=weights, k=chance.randint(10, 150)))
        length = chance.randint(5, 80)
        return " ".join(chance.choice(COMMON if chance.random() < 0.25 else words) for _ in range(length))

    return text


async def fill(database: Database, size: int) -> str:
    """Store `size` messages; gives the id of the long conversation."""
    text, began = texts(), datetime.now(UTC) - timedelta(days=YEAR)
    long = Conversation.new("", "the long one")
    async with database.write() as connection:
        made, conversation, parent = 0, long, None
        while made < size:
            length = size // 2 if conversation is long else PAGE
            rows: list[dict[str, Any]] = []
            for number in range(min(length, size - made)):
                row = {
                    "id": secrets.token_hex(8),
                    "conversation_id": conversation.id,
                    "parent_id": parent,
                    "role": "assistant" if number % 2 else "user",
                    "text": text(),
                    "status": "complete",
                    "created": began + timedelta(days=YEAR) * ((made + number) / size),
                }
                parent = row["id"]
                rows.append(row)
            fields = {name: getattr(conversation, name) for name in Conversation.__dataclass_fields__}
            await connection.execute(insert(conversations).values(**fields | {"leaf_id": parent}))
            await insert_rows(connection, messages, rows)
            made += len(rows)
            conversation, parent = Conversation.new("", f"conversation {made}"), None
    return long.id


async def measure(size: int, folder: Path, steps: Steps) -> list[tuple[str, float, int, int]]:
    """(what, seconds, results that came, thousands of steps) of everything that a person waits for."""
    rows: list[tuple[str, float, int, int]] = []
    async with open_store(Settings.load(home=folder / str(size))) as kept:
        long = await fill(kept.database, size)
        store, search = kept.conversations, kept.search
        responder = ScriptedResponder(context_length=8_192)

        async def open_it() -> int:
            return len(await store.path((await store.get(long)).leaf_id, PAGE))

        async def turn() -> int:
            opened = await store.add_turn(long, "and what then?")
            context = await build_context(kept, opened.said.id, "", responder, 1_024)
            for number in range(5):
                await store.save_replies({opened.reply.id: "word " * number})
            await store.end_reply(opened.reply.id, "a reply of a few words", "complete")
            return len(context.messages)

        async def page() -> int:
            first = await store.list(50)
            return len(await store.list(50, first[-1])) + len(first)

        def searching(query: Query, offset: int = 0) -> Callable[[], Awaitable[int]]:
            async def find() -> int:
                return len(await search.find(query, PAGE, offset))

            return find

        sample = await store.path((await store.get(long)).leaf_id)
        word = next(word for message in sample for word in message.text.split() if len(word) == 7 and word.isascii())
        now = datetime.now(UTC)
        for what, work in [
            ("open a conversation", open_it),
            ("a turn", turn),
            ("two pages of the list", page),
            (f"search {word}", searching(Query(word))),
            ("search ing, best first", searching(Query("ing", order="best"))),
            ("search two words", searching(Query(f"{word} th"))),
            ("search qz", searching(Query("qz"))),
            ("search e", searching(Query("e"))),
            (f"search {HAN[0]}", searching(Query(HAN[0]))),
            (f"search {HAN[2_500]}", searching(Query(HAN[2_500]))),
            (f"search {HAN[40]}{HAN[90]}", searching(Query(HAN[40] + HAN[90]))),
            ("search 龥, which is not there", searching(Query("龥"))),
            *((f"search {query}", searching(Query(query))) for query in WORST),
            ("search the, from result 20,000 on", searching(Query("the"), 20_000)),
            ("search th, in the long one", searching(Query("th", conversation=long))),
            ("search the, later than all", searching(Query("the", since=now + timedelta(days=1)))),
            ("search e, later than all", searching(Query("e", since=now + timedelta(days=1)))),
            ("search the, of the first week", searching(Query("the", until=now - timedelta(days=YEAR - 7)))),
            ("search e, of the first week", searching(Query("e", until=now - timedelta(days=YEAR - 7)))),
            (f"search {HAN[0]} zq", searching(Query(f"{HAN[0]} zq"))),
            ("search e, from result 20,000 on", searching(Query("e"), 20_000)),
        ]:
            times: list[float] = []
            came = steps.count = 0
            for _ in range(ROUNDS):
                steps.count = 0
                began = time.perf_counter()
                came = await work()
                times.append(time.perf_counter() - began)
            rows.append((what, median(times), came, steps.count))
        gone = (await store.add_turn(Conversation.new(""), SHORT)).said.conversation_id
        steps.count = 0
        began = time.perf_counter()
        await kept.forgetting.conversation(gone)
        rows.append(("delete a conversation", time.perf_counter() - began, 0, steps.count))
    return rows


async def main() -> None:
    steps = Steps()
    with tempfile.TemporaryDirectory() as name:
        columns = [await measure(size, Path(name), steps) for size in SIZES]
    print(f"| messages stored | {' | '.join(f'{size:,}: time | came | steps/1,000' for size in SIZES)} |")
    print("|---|" + "---|" * 3 * len(SIZES))
    for row in zip(*columns, strict=True):
        cells = (f"{1e3 * seconds:.1f} ms | {came} | {count}" for _, seconds, came, count in row)
        print(f"| {row[-1][0]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    asyncio.run(main())
