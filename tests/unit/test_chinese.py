"""Chinese prompts, word by word."""

from __future__ import annotations

import pytest

from chatbot.aigc.chinese import has_han, to_english


@pytest.mark.parametrize(
    ("prompt", "english"),
    [
        ("画一只猫", "cat"),
        ("一颗红心", "red heart"),
        ("生日蛋糕", "birthday cake"),
        ("我要一个机器人", "robot"),
        ("熊猫", "panda"),
        ("足球", "soccer ball"),
        ("红色的心", "red heart"),
        ("一只黑色的猫", "black cat"),
        ("电脑", "laptop"),
    ],
)
def test_a_chinese_prompt_is_read_as_what_it_names(prompt: str, english: str) -> None:
    assert has_han(prompt)
    assert to_english(prompt) == english


def test_a_prompt_without_a_known_word_is_not_read_as_something_else() -> None:
    assert to_english("量子力学") is None
    assert not has_han("a red heart ❤")
