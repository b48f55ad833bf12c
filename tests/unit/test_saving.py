"""What has come of a reply is kept while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from chatbot.events import Failed, Started, TextDelta
from storage.errors import StorageError
from tests.scripted import scripted_service

WORDS = 120
PACE_S = 0.02


async def test_the_first_piece_is_kept_at_once_and_little_is_ever_unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    script = " ".join(f"word{number}" for number in range(WORDS))
    async with scripted_service(lambda messages: script, delay=PACE_S) as service:
        kept: list[int] = []
        save = service.conversations.save_replies

        async def noted(texts: Mapping[str, str]) -> None:
            kept.extend(len(text.split()) for text in texts.values())
            await save(texts)

        monkeypatch.setattr(service.conversations, "save_replies", noted)
        seen = 0
        async with aclosing(service.send(None, "go")) as events:
            async for event in events:
                seen += isinstance(event, TextDelta)
                if isinstance(event, Started):
                    reply = event.reply
        assert kept[0] <= 2
        # Counted in words that come 50 a second, so that a slow machine is no reason: at least five times a second.
        most = 0.2 / PACE_S + 4
        assert max(later - before for before, later in pairwise(kept)) <= most
        assert (await service.conversations.message(reply)).text == script
        assert seen == WORDS


async def test_a_reply_of_which_nothing_comes_shows_that_its_writer_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted_service(lambda messages: "at last", delay=2.5) as service:
        seen: list[datetime] = []
        save = service.conversations.save_replies

        async def noted(texts: Mapping[str, str]) -> None:
            await save(texts)
            if set(texts.values()) == {""}:
                seen.append(datetime.now(UTC))

        monkeypatch.setattr(service.conversations, "save_replies", noted)
        async for _ in service.send(None, "go"):
            pass
        assert len(seen) >= 2


async def test_a_reply_that_cannot_be_saved_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_service(lambda messages: "word " * 200, delay=0.02) as service:

        async def full(texts: Mapping[str, str]) -> None:
            raise StorageError("The disk is full.")

        monkeypatch.setattr(service.conversations, "save_replies", full)
        events = [event async for event in service.send(None, "go")]
        assert isinstance(events[-1], Failed)
        assert events[-1].text == "The disk is full."
        assert sum(isinstance(event, TextDelta) for event in events) < 20


async def test_replies_side_by_side_are_saved_together_and_each_ends_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_service(lambda messages: messages[-1].content * 20, delay=0.02) as service:
        together: list[int] = []
        save = service.conversations.save_replies

        async def noted(texts: Mapping[str, str]) -> None:
            together.append(len(texts))
            await save(texts)

        monkeypatch.setattr(service.conversations, "save_replies", noted)

        async def one(said: str) -> str:
            started = [event async for event in service.send(None, said) if isinstance(event, Started)]
            return (await service.conversations.message(started[0].reply)).text

        told = [f"number {number} " for number in range(20)]
        assert await asyncio.gather(*map(one, told)) == [(said.strip() * 20) for said in told]
        assert max(together) > 10
