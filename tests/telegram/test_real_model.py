"""The bot on the default model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.telegram.world import ADA, Bot, Telegram, is_whole


@pytest.mark.usefixtures("model_path")
def test_the_default_model_answers_in_words_that_grow(telegram: Telegram, bot: Bot, home: Path) -> None:
    bot.model = "smollm2-135m-instruct"
    bot.settings["CHATBOT_MAX_TOKENS"] = "60"
    bot.run()
    telegram.say("Why is the sky blue? Explain at length.")
    telegram.wait(lambda: any(map(is_whole, telegram.sent())), seconds=120)
    [whole] = telegram.sent()
    drafts = [call["text"].removesuffix(" …") for call in telegram.calls("sendMessageDraft", ADA)]
    assert drafts
    assert len(whole["text"]) > 80
    assert whole["text"].startswith(drafts[0][:20])
    assert bot.end() == 143
