"""The hf engine, process and pipe included, beside plain `transformers.generate`, same model and number type."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from statistics import median
from typing import Any

from chatbot.catalog import CATALOG
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.gguf_to_hf import dequantized
from chatbot.engines.hf import HfResponder, converted_folder
from chatbot.fetch import model_file
from chatbot.settings import Settings
from tests.benchmarks.decode import QUESTIONS
from tests.benchmarks.table import Row

ROUNDS = 3
TOKENS = 32


class Generate:
    """`model.generate` with its own streamer's clock: the times of the tokens."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from chatbot.engines.hf_model import _dtype

        torch.set_num_threads(threads)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(torch.device("cpu")))

    def turn(self, messages: list[ChatMessage]) -> tuple[float, float]:
        """First token (s) and tokens a second."""
        times: list[float] = []

        class Clock:
            def put(self, value: Any) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        asked = time.perf_counter()
        prompt = self._tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        self._model.generate(
            **prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, streamer=Clock()
        )
        times = times[1:]  # the first call gives it the prompt
        return times[0] - asked, (len(times) - 1) / (times[-1] - times[0])


async def measure() -> list[Row]:
    settings = Settings.load()
    entry = CATALOG[0]
    file = model_file(entry, settings.models_folder)
    folder = await asyncio.to_thread(dequantized, file, converted_folder(settings.cache, entry.sha256))
    plain = await asyncio.to_thread(Generate, str(folder), 2)
    engine = await HfResponder.load(folder, entry.ref, context_length=4096, threads=2)
    firsts: dict[int, tuple[list[float], list[float]]] = {1: ([], []), 12: ([], [])}
    speeds: tuple[list[float], list[float]] = ([], [])
    try:
        for number in range(ROUNDS):
            messages: list[ChatMessage] = [ChatMessage("system", f"You are a helpful assistant, number {number}.")]
            for turn, question in enumerate(QUESTIONS, start=1):
                messages.append(ChatMessage("user", question))
                if turn in firsts:
                    first, speed = await asyncio.to_thread(plain.turn, messages)
                    firsts[turn][1].append(first)
                    if turn == 1:
                        speeds[1].append(speed)
                text, first, speed = await _ours(engine, messages)
                if turn in firsts:
                    firsts[turn][0].append(first)
                    if turn == 1:
                        speeds[0].append(speed)
                messages.append(ChatMessage("assistant", text))
    finally:
        await engine.close()
    peer = "transformers.generate"
    return [
        Row("hf, decode at turn 1", "tokens/s", *map(median, speeds), peer, "ratio ≥ 1.0"),
        Row("hf, first token of turn 1", "s", *map(median, firsts[1]), peer, "as context"),
        Row("hf, first token of turn 12", "s", *map(median, firsts[12]), peer, "ratio ≤ 0.333"),
    ]


async def _ours(engine: HfResponder, messages: list[ChatMessage]) -> tuple[str, float, float]:
    text = ""
    times: list[float] = []
    count = 0
    asked = time.perf_counter()
    async with aclosing(engine.reply(messages, GenerationOptions(max_tokens=TOKENS, temperature=0))) as reply:
        async for piece in reply:
            if isinstance(piece, Completion):
                count = piece.completion_tokens
            else:
                times.append(time.perf_counter())
                text += piece
    return text, times[0] - asked, (count - 1) / (times[-1] - times[0])
