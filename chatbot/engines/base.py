"""The protocols of engines: what answers in words, and what makes pictures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message as the model sees it."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to sample. `max_tokens` counts the reply alone; `seed` None draws a new one. Where the reply is not
    `followed` by anything that goes on from it, an engine need not prepare for that."""

    max_tokens: int
    temperature: float = 0.3
    top_p: float = 0.9
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    followed: bool = True


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a reply. Tokens are the model's own, the end-of-turn token not counted as text but as a token;
    `cached_tokens` of the prompt came from the prompt cache."""

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    decode_tokens_per_s: float


class Responder(Protocol):
    """A loaded chat model. Many conversations may use it at once, from one event loop."""

    @property
    def name(self) -> str:
        """`name@version` of the model."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its reply may have together."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still answer: its process has not died."""
        ...

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that `messages` make through the model's own chat template, the opening of
        the reply included."""
        ...

    def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        """Stream the reply: pieces of text as they come, never half a character, then one Completion.

        Where the last message is the assistant's, the reply goes on from its end, and only what is new comes.

        Closing the iterator, or cancelling the task that reads it, stops the model within a token.

        Raises:
            ModelError: the prompt does not fit, the engine failed, or it cannot go on with a reply.
        """
        ...

    async def close(self) -> None:
        """Stop all replies and give the memory back."""
        ...


MOST_PICTURES = 64
"""That may be asked for at once."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was made: PNG, with prompt, seed, style and version in its text chunks."""

    png: bytes
    seed: int
    style: str


class ImageGenerator(Protocol):
    """A loaded model that makes pictures. Several callers may use it at once, from one event loop."""

    @property
    def name(self) -> str:
        """`name@version` of the model."""
        ...

    @property
    def styles(self) -> Sequence[str]:
        """What `style` may be; empty where the model knows none."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still answer: its process has not died."""
        ...

    def imagine(
        self, prompt: str, *, count: int = 1, seed: int | None = None, style: str = ""
    ) -> AsyncGenerator[Picture | str, None]:
        """Make pictures as they come. Text in between is a notice for the person: what the prompt was taken for.

        Picture n has the seed `seed` + n; None draws one. Closing the iterator stops after the picture in work.

        Raises:
            ModelError: the style is unknown, there are none or more than 64 to be made, or the engine failed.
        """
        ...

    async def close(self) -> None:
        """Stop, and give the memory back."""
        ...
