"""Any OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, a cluster, or OpenAI itself."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.errors import ModelError
from chatbot.trace import hide

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_HOST = "api.openai.com"
KEYRING_SERVICE = "chatbot"

_ATTEMPTS = 3
_LONGEST_WAIT_S = 10.0
"""Before another attempt: an endpoint that wants to be left alone for longer is not tried again."""

_SECRET = 8
"""Characters that a key has at least: a shorter one is a placeholder, and may be part of any word."""

_TEMPLATE = 32
"""Tokens that a chat template may add by itself: some begin with a system prompt of their own."""

_T = TypeVar("_T")


def find_key(url: str) -> str:
    """The key for an endpoint: `CHATBOT_OPENAI_API_KEY`, else the keyring's entry for the host, else none.

    `OPENAI_API_KEY` is OpenAI's alone: it is sent nowhere else, and never unencrypted. Raises ModelError for what
    can be no key.
    """
    parts = urlsplit(url)
    key = _key_of(parts.scheme, parts.hostname or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ModelError("The key of the endpoint holds characters that no key has; set it anew.")
    return key


def _key_of(scheme: str, host: str) -> str:
    if key := os.environ.get("CHATBOT_OPENAI_API_KEY"):
        return key
    if (scheme, host) == ("https", OPENAI_HOST) and (key := os.environ.get("OPENAI_API_KEY")):
        return key
    import keyring
    from keyring.errors import KeyringError

    with suppress(KeyringError):  # a machine without a keyring has no key in it
        return keyring.get_password(KEYRING_SERVICE, host) or ""
    return ""


@dataclass(slots=True)
class _Answer:
    """How far an answer has come."""

    begun: bool = False


class OpenAIResponder:
    """A model behind an endpoint. Its tokens are not ours to count: `count_tokens` errs on the side of too many."""

    def __init__(self, name: str, model: str, url: str, key: str, context_length: int, client: AsyncOpenAI) -> None:
        self.name = name
        self.context_length = context_length
        self._model = model
        self._url = url
        self._key = key
        self._client = client

    @classmethod
    async def load(cls, name: str, model: str, url: str, *, context_length: int, timeout: float) -> OpenAIResponder:
        """Ask the endpoint at `url` for its models, to know that it answers and has this one.

        Args:
            context_length: tokens to use at most; fewer where the endpoint says so.
            timeout: seconds to wait for the next piece.

        Raises:
            ModelError: it cannot be reached, refuses the key, or has no such model.
        """

        def connect() -> tuple[str, AsyncOpenAI]:  # imports for half a second
            from openai import AsyncOpenAI, Timeout

            key = find_key(url)
            if len(key) >= _SECRET:
                hide(key)
            limits = Timeout(timeout, connect=min(timeout, 10))
            return key, AsyncOpenAI(base_url=url, api_key=key or "none", timeout=limits, max_retries=0)

        key, client = await asyncio.to_thread(connect)
        responder = cls(name, model, url, key, context_length, client)
        try:
            await responder._look()
        except BaseException:
            await responder.close()
            raise
        return responder

    async def _look(self) -> None:
        from openai import NotFoundError

        offered: dict[str, Any] = {}
        with self._said_to_a_person():
            try:
                async for model in await self._attempt(self._client.models.list):
                    offered[model.id] = model.model_dump()
            except NotFoundError:  # an endpoint need not list its models
                return
        if offered and self._model not in offered:
            some = ", ".join(list(offered)[:5])
            raise ModelError(f"{self._url} has no model '{self._model}'; it has {some}.")
        known = offered.get(self._model, {})
        for length in (
            known.get("max_model_len"),  # vLLM
            known.get("context_length"),  # OpenRouter and others
            (known.get("meta") or {}).get("n_ctx"),  # llama.cpp
            (known.get("meta") or {}).get("n_ctx_train"),
        ):
            if isinstance(length, int) and length > 0:
                self.context_length = min(self.context_length, length)
                break

    async def _attempt(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` gives, asked again where the endpoint refuses for now or cannot be reached. Not where it is
        slow: it would only compute the same once more."""
        from openai import APIConnectionError, APITimeoutError, InternalServerError, RateLimitError

        for attempt in range(1, _ATTEMPTS):
            try:
                return await ask()
            except APITimeoutError:
                raise
            except (APIConnectionError, InternalServerError, RateLimitError) as error:
                wait = _retry_after(error) or 0.5 * attempt
                if wait > _LONGEST_WAIT_S:
                    raise
            await asyncio.sleep(wait)
        return await ask()

    @property
    def alive(self) -> bool:
        return True  # as far as we can know

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return self._count(messages)

    def _count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(_estimate(message.content) + 8 for message in messages) + _TEMPLATE

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        official = urlsplit(self._url).hostname == OPENAI_HOST
        extra: dict[str, Any] = {}
        if messages[-1].role == "assistant":
            if official:
                raise ModelError(f"{self._url} cannot go on with a reply; /retry asks for another one.")
            extra |= {"continue_final_message": True, "add_generation_prompt": False}  # others do it unasked
        request["max_completion_tokens" if official else "max_tokens"] = options.max_tokens
        if options.seed is not None:
            request["seed"] = options.seed
        if options.stop:
            request["stop"] = list(options.stop)
        if options.repeat_penalty != 1:
            extra["repeat_penalty"] = options.repeat_penalty
        if extra:
            request["extra_body"] = extra
        reason: str | None = None
        usage: Any = None
        times: list[float] = []
        text = ""
        with self._said_to_a_person() as answer:
            async with await self._attempt(lambda: self._client.chat.completions.create(**request)) as stream:
                async for chunk in stream:
                    answer.begun = True
                    usage = getattr(chunk, "usage", None) or usage
                    for choice in getattr(chunk, "choices", None) or []:
                        reason = choice.finish_reason or reason
                        if piece := choice.delta.content:
                            times.append(time.perf_counter())
                            text += piece
                            yield piece
        if not answer.begun:
            raise ModelError(f"{self._url} sent what is not of the OpenAI protocol.")
        if reason is None:
            raise ModelError(f"{self._url} broke off in the middle of its reply.")
        yield self._completion(messages, text, reason, usage, times[-1] - times[0] if times else 0.0)

    def _completion(
        self, messages: Sequence[ChatMessage], text: str, reason: str, usage: Any, seconds: float
    ) -> Completion:
        said = _whole(usage, "completion_tokens", _estimate(text))
        return Completion(
            finish_reason="length" if reason == "length" else "stop",
            prompt_tokens=_whole(usage, "prompt_tokens", self._count(messages)),
            cached_tokens=_whole(getattr(usage, "prompt_tokens_details", None), "cached_tokens", 0),
            completion_tokens=said,
            decode_tokens_per_s=(said - 1) / seconds if seconds and said > 1 else 0.0,
        )

    @contextmanager
    def _said_to_a_person(self) -> Iterator[_Answer]:
        """Turns whatever the endpoint or the network does into one sentence, in which no key stands."""
        import httpx2
        import openai

        answer = _Answer()
        try:
            yield answer
        except (openai.APITimeoutError, httpx2.TimeoutException):
            if answer.begun:
                raise ModelError(f"{self._url} stopped answering in the middle of its reply.") from None
            raise ModelError(f"{self._url} does not answer; try again, or choose another model.") from None
        except (openai.APIConnectionError, httpx2.HTTPError):
            if answer.begun:
                raise ModelError(f"{self._url} broke off in the middle of its reply.") from None
            raise ModelError(f"{self._url} cannot be reached; is it running, and the network up?") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            host = urlsplit(self._url).hostname
            raise ModelError(
                f"{self._url} refuses the key; set CHATBOT_OPENAI_API_KEY, or `keyring set {KEYRING_SERVICE} {host}`."
            ) from None
        except openai.RateLimitError as error:
            after = _retry_after(error)
            wait = f"in {after:.0f} seconds" if after else "later"
            raise ModelError(f"{self._url} has too much to do, or the quota is used up; try again {wait}.") from None
        except openai.APIStatusError as error:
            raise ModelError(f"{self._url} refused ({error.status_code}): {self._reason(error)}") from None
        except openai.APIError as error:
            raise ModelError(f"{self._url} failed: {self._reason(error)}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, KeyError, ValueError):
            raise ModelError(f"{self._url} sent what is not of the OpenAI protocol.") from None

    def _reason(self, error: Any) -> str:
        body = error.body if isinstance(error.body, dict) else {}
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else None
        line = str(message or error.message)
        if self._key:  # before it is cut: half a key is none that would be found
            line = line.replace(self._key, "***")
        return line.replace("\n", " ").strip()[:300].rstrip(".") + "."

    async def close(self) -> None:
        await self._client.close()


def _retry_after(error: Any) -> float:
    """Seconds after which the endpoint wants to be asked again; 0 where it does not say."""
    response = getattr(error, "response", None)
    said = "" if response is None else response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0


def _whole(usage: Any, name: str, otherwise: int) -> int:
    """A number of what the endpoint says was used; `otherwise` where it says none."""
    said = getattr(usage, name, None)
    return said if isinstance(said, int) else otherwise


def _estimate(text: str) -> int:
    """More tokens than `text` has, mostly: three ASCII characters, or one byte of others, to a token."""
    ascii_characters = sum(character < "\x80" for character in text)
    return ceil(ascii_characters / 3) + len(text.encode(errors="replace")) - ascii_characters
