"""A scripted stand-in for a model: no weights, the same behaviour each time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.errors import ModelError

Script = Callable[[Sequence[ChatMessage]], str]

_TOKEN = re.compile(r"\s*\S+|\s+")


def echo(messages: Sequence[ChatMessage]) -> str:
    """The default script: says back what was said."""
    return f"You said: {messages[-1].content}"


class ScriptedResponder:
    """Answers from a script, a word a token. A prompt costs its words and two more a message.

    Args:
        script: the reply to a list of messages; what it raises is what the engine raises.
        delay: seconds before each token.
        context_length: tokens.
    """

    def __init__(
        self, script: Script = echo, *, name: str = "fake@1", delay: float = 0.0, context_length: int = 4096
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
        started = time.perf_counter()
        for token in tokens[:room]:
            await asyncio.sleep(self._delay)
            yield token
        seconds = time.perf_counter() - started
        count = min(room, len(tokens) + 1)  # the end of the turn is a token too
        yield Completion(
            finish_reason="length" if len(tokens) > room else "stop",
            prompt_tokens=prompt,
            cached_tokens=0,
            completion_tokens=count,
            decode_tokens_per_s=count / seconds if seconds else 0.0,
        )

    async def close(self) -> None:
        return None
