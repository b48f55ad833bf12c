"""What has come of a reply is kept while it comes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from itertools import pairwise

import pytest

from chatbot.events import Started, TextDelta
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
