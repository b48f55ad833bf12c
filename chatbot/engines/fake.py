"""Scripted stand-ins for the models: no weights, the same behaviour each time."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import struct
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence

from chatbot.engines.base import MOST_PICTURES, ChatMessage, Completion, GenerationOptions, Picture
from chatbot.engines.stops import StopTexts
from chatbot.errors import ModelError

Script = Callable[[Sequence[ChatMessage]], str]
Pace = Callable[[Sequence[ChatMessage]], tuple[float, float]]

_TOKEN = re.compile(r"\s*\S+|\s+")
_COUNT = re.compile(r"\bcount to (\d{1,5})(?: every (\d*\.?\d+) s)?(?: after (\d*\.?\d+) s)?")


def echo(messages: Sequence[ChatMessage]) -> str:
    """The default script: says back what was said, and counts where that asks for it."""
    said = messages[-1].content
    match = _COUNT.search(said)
    numbers = "".join(f" {number}" for number in range(1, int(match[1]) + 1)) if match else ""
    return f"You said: {said}{numbers}"


def asked_pace(messages: Sequence[ChatMessage]) -> tuple[float, float]:
    """Seconds before the first token and before each other, as in `count to 40 every 0.1 s after 2 s`."""
    match = _COUNT.search(messages[-1].content)
    every = float(match[2] or 0) if match else 0.0
    return (float(match[3] or every) if match else 0.0), every


class ScriptedResponder:
    """Answers from a script, a word a token. A prompt costs its words and two more a message.

    Args:
        script: the reply to a list of messages; what it raises is what the engine raises.
        delay: seconds before each token; or what finds those before the first and before the others.
        context_length: tokens.
    """

    def __init__(
        self, script: Script = echo, *, name: str = "fake@1", delay: float | Pace = 0.0, context_length: int = 4096
    ) -> None:
        self._script = script
        self._delay = delay
        self.name = name
        self.context_length = context_length

    @property
    def alive(self) -> bool:
        return True

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len(_TOKEN.findall(message.content)) + 2 for message in messages) + 1

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        prompt = await self.count_tokens(messages)
        if prompt >= self.context_length:
            raise ModelError(f"The prompt has {prompt} tokens; {self.name} takes {self.context_length}.")
        said = ""
        if messages[-1].role == "assistant":
            *messages, cut = messages
            said = cut.content
        tokens = _TOKEN.findall(self._script(messages).removeprefix(said))
        room = min(options.max_tokens, self.context_length - prompt)
        first, every = self._delay(messages) if callable(self._delay) else (self._delay, self._delay)
        started = time.perf_counter()
        stops = StopTexts(options.stop)
        count = 0
        for count, token in enumerate(tokens[:room], 1):
            await asyncio.sleep(first if count == 1 else every)
            if text := stops.add(token):
                yield text
            if stops.found:
                break
        if rest := stops.rest():
            yield rest
        seconds = time.perf_counter() - started
        if not stops.found:
            count = min(room, len(tokens) + 1)  # the end of the turn is a token too
        yield Completion(
            finish_reason="length" if len(tokens) > room and not stops.found else "stop",
            prompt_tokens=prompt,
            cached_tokens=0,
            completion_tokens=count,
            decode_tokens_per_s=count / seconds if seconds else 0.0,
        )

    async def close(self) -> None:
        return None


class ScriptedGenerator:
    """Makes a small picture of one colour, which the prompt, the seed and the style decide; `round` ones have
    transparent corners.

    Args:
        delay: seconds before each picture.
        unknown: what it gives a notice about, where the prompt is that.
    """

    styles: Sequence[str] = ("flat", "round")

    def __init__(self, *, name: str = "fake-pictures@1", delay: float = 0.0, unknown: str = "blorg") -> None:
        self.name = name
        self._delay = delay
        self._unknown = unknown

    @property
    def alive(self) -> bool:
        return True

    async def imagine(
        self, prompt: str, *, count: int = 1, seed: int | None = None, style: str = ""
    ) -> AsyncGenerator[Picture | str, None]:
        if not 1 <= count <= MOST_PICTURES:
            raise ModelError(f"One to {MOST_PICTURES} pictures can be made at once.")
        if style not in ("", *self.styles):
            raise ModelError(f"{self.name} does not know the style '{style}'; it knows {', '.join(self.styles)}.")
        if prompt == self._unknown:
            yield f"{self.name} may not know what this is."
        first = secrets.randbelow(2**31) if seed is None else seed
        for number in range(first, first + count):
            await asyncio.sleep(self._delay)
            drawn = style or self.styles[number % 2]
            colour = hashlib.sha256(f"{prompt}|{number}|{drawn}".encode()).digest()[:3]
            yield Picture(_png(colour, drawn == "round"), number, drawn)

    async def close(self) -> None:
        return None


def _png(colour: bytes, rounded: bool) -> bytes:
    """8x8 pixels, RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel, corner = colour + b"\xff", colour + (b"\0" if rounded else b"\xff")
    edge, row = b"\0" + corner + pixel * 6 + corner, b"\0" + pixel * 8
    header = struct.pack(">IIBBBBB", 8, 8, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(edge + row * 6 + edge))
        + chunk(b"IEND", b"")
    )
