"""Small chats and texts to train on, and a small model of real shape: grouped queries, tied embeddings."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from chatbot.gpt.chat_tokens import CHATML
from chatbot.gpt.tokenizer import train

WORDS = tuple("the sea wind ship harbour rain light bird stone river quiet morning field cloud song".split())  # noqa: SIM905 - easier to read
ODD = (
    "plain words",
    "  leading and   many    spaces\t\ttabs  ",
    "numbers 3.14, 2026 and  100 000",
    "\n\nlines\r\n\n  end\n",
    "naïve café – „quotes“ … don't WE'LL",
    "你好，世界。日本語テキスト 한국어",
    "😀🎉👩‍👩‍👧 ✈️ 🇩🇪",
    "<|im_end|> and <|im_start|>user\nhi <|endoftext|>",
    "\u00a0\u2003\u3000 odd spaces \u200b\ufeff",
    "x" * 70 + " 0x7f_ff::[]{}()!!!???",
    "עברית العربية हिन्दी ไทย",
    "",
)


def prose(seed: int, sentences: int) -> str:
    chance = random.Random(seed)
    lines = [" ".join(chance.choices(WORDS, k=chance.randint(5, 12))).capitalize() + "." for _ in range(sentences)]
    return "\n\n".join(" ".join(lines[at : at + 4]) for at in range(0, len(lines), 4))


def text_file(folder: Path, sentences: int = 1200) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prose.txt"
    path.write_text(prose(1, sentences), encoding="utf-8")
    return path


def chats(count: int = 60) -> list[dict[str, Any]]:
    chance = random.Random(2)
    return [
        {
            "messages": [
                {"role": "user", "content": f"Question {number}: " + " ".join(chance.choices(WORDS, k=6)) + "?"},
                {"role": "assistant", "content": " ".join(chance.choices(WORDS, k=8)) + f" {number}."},
            ]
        }
        for number in range(count)
    ]


def lines(path: Path, entries: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return path


def small_tokenizer(vocabulary: int = 400) -> Any:
    return train([prose(number, 40) + "".join(ODD) for number in range(4)], vocabulary, 512)


def small_model(folder: Path, *, template: str | None = CHATML, seed: int = 0) -> Path:
    """Write a model with weights far from zero, so that a mistake in their order shows."""
    tokenizer = small_tokenizer()
    tokenizer.chat_template = template
    if template is not None:
        tokenizer.eos_token = "<|im_end|>"
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
