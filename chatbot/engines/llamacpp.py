"""GGUF models through llama.cpp: one server process shared by all conversations."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatbot.child import Child
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.prompt import PLAIN_STOP, PLAIN_TEMPLATE, Prompt, build_prompt, without_system
from chatbot.errors import ModelError

_CACHED_TEXTS = 4096


class LlamaCppResponder:
    """A GGUF model in a server process of its own, on loopback behind a random key.

    A prompt is assembled from token ids: the text of the chat template with its control tokens, the text of
    messages without, so that "<|im_end|>" typed by a person stays text. The ids of each text are kept, so that a
    turn tokenizes only what is new.

    When a reply has ended, the server reads on to where the person's next message will begin: the control tokens
    in between are certain, and the next reply comes sooner by the time they take.
    """

    def __init__(
        self, name: str, context_length: int, child: Child, address: str, key: str, *, stop: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.context_length = context_length
        self._child = child
        self._address = address
        self._key = key
        self._stop = stop
        self._tokens: OrderedDict[tuple[str, bool, bool], list[int]] = OrderedDict()
        self._rendered: tuple[tuple[ChatMessage, ...], list[int]] = ((), [])
        self._reading_on: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    @classmethod
    async def load(
        cls,
        path: Path,
        name: str,
        *,
        context_length: int,
        slots: int = 1,
        threads: int = 0,
        chat_template: bool = True,
        speculate: bool = True,
    ) -> LlamaCppResponder:
        """Start the server on the model at `path`; each of `slots` conversations has `context_length` tokens.

        A model without a `chat_template` of its own is given a plain transcript. With `speculate`, text that was
        there before is guessed ahead and checked in one go: the reply is the same, sooner where it repeats.

        Raises:
            ModelError: the file is missing, damaged or not a GGUF, or memory does not suffice.
        """
        if not path.is_file():
            raise ModelError(f"The file of {name} is missing: {path}.")
        key = secrets.token_urlsafe(24)
        child = await Child.start(
            "chatbot.engines.llamacpp_server",
            {
                "path": str(path),
                "context": context_length,
                "slots": slots,
                "threads": threads,
                "speculate": speculate,
                "key": key,
            }
            | ({} if chat_template else {"chat_template": PLAIN_TEMPLATE}),
        )
        try:
            said = await child.receive()
        except BaseException:
            await child.close()
            raise
        if said is None:
            await child.close()
            raise ModelError(
                f"{name} cannot be loaded: {path} is damaged, not a GGUF of a model that llama.cpp knows, or too "
                "large for the free memory."
            )
        address = urlsplit(str(said["address"])).netloc
        return cls(name, context_length, child, address, key, stop=() if chat_template else (PLAIN_STOP,))

    @property
    def alive(self) -> bool:
        return self._child.alive

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return len(await asyncio.to_thread(self._prompt, messages))

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        self._stop_reading_on()
        counted, prompt = self._rendered  # what was counted last is mostly what is sent next
        if counted != tuple(messages):
            prompt = await asyncio.to_thread(self._prompt, messages)
        request = {
            "prompt": prompt,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "repeat_penalty": options.repeat_penalty,
            "repeat_last_n": 256,
            "seed": -1 if options.seed is None else options.seed,
            "stop": [*options.stop, *self._stop],
            "stream": True,
            "cache_prompt": True,
        }
        last: dict[str, Any] = {}
        said = ""
        async with aclosing(self._stream("/v1/completions", request)) as chunks:
            async for chunk in chunks:
                last = chunk
                if text := chunk["choices"][0]["text"]:
                    said += text
                    yield text
        if "usage" not in last:
            raise ModelError(f"{self.name} broke off in the middle of its reply.")
        following = [*messages, ChatMessage("assistant", said), ChatMessage("user", "")]
        threading.Thread(target=self._read_on, args=[following], name="llamacpp-read-on", daemon=True).start()
        yield _completion(last)

    async def _stream(self, path: str, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer; closing it closes the connection, and the server stops within a token.

        By hand over asyncio's streams: a client library, or a thread, costs a few percent of the decoding speed,
        since the model computes on all cores.
        """
        body = json.dumps(request).encode()
        headers = self._headers() | {"Host": self._address, "Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            reader, writer = await asyncio.open_connection(*self._address.rsplit(":", 1))
            try:
                writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
                status = (await reader.readline()).split(b" ", 2)[1:2]
                while (await reader.readline()).strip():
                    pass
                if status != [b"200"]:
                    raise ModelError(self._complaint(await reader.read()))
                waiting = b""
                while data := await reader.read(65536):
                    *lines, waiting = (waiting + data).split(b"\n")  # those of the chunked encoding say nothing here
                    for line in lines:
                        field, _, said = line.partition(b": ")
                        if field == b"error":
                            raise ModelError(self._complaint(said))
                        if field == b"data" and said.strip() == b"[DONE]":
                            return
                        if field == b"data":
                            event = json.loads(said)
                            if "error" in event:
                                raise ModelError(self._complaint(said))
                            yield event
            finally:
                writer.transport.abort()
        except (OSError, EOFError, ValueError) as error:
            raise ModelError(f"{self.name} stopped answering: {error or type(error).__name__}.") from None

    def _read_on(self, messages: Sequence[ChatMessage]) -> None:
        """Let the server read a prompt up to the content of its last message. Runs in a thread."""
        with suppress(ModelError), self._asking() as connection:
            with self._lock:
                prompt = self._render(connection, messages)
            self._reading_on = connection
            self._ask(
                connection, "/completion", {"prompt": prompt.ids[: prompt.last], "n_predict": 0, "cache_prompt": True}
            )
            self._reading_on = None

    def _stop_reading_on(self) -> None:
        connection, self._reading_on = self._reading_on, None
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _complaint(self, body: bytes) -> str:
        try:
            message = json.loads(body)
            message = message.get("error", message)["message"]
        except (ValueError, KeyError, TypeError, AttributeError):
            message = body.decode(errors="replace")[:200]
        return f"{self.name} refused: {message}."

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of the prompt. Runs in a thread."""
        key = tuple(messages)
        with self._lock:
            if self._rendered[0] != key:
                with self._asking() as connection:
                    self._rendered = key, self._render(connection, messages).ids
            return self._rendered[1]

    def _render(self, connection: http.client.HTTPConnection, messages: Sequence[ChatMessage]) -> Prompt:
        def render(marked: list[dict[str, str]]) -> str:
            prompt: str = self._ask(connection, "/apply-template", {"messages": marked})["prompt"]
            return prompt

        tokenize = partial(self._tokenize, connection)
        try:
            return build_prompt(messages, render, tokenize)
        except ModelError:
            if not any(message.role == "system" for message in messages):
                raise
            return build_prompt(without_system(messages), render, tokenize)

    def _tokenize(self, connection: http.client.HTTPConnection, text: str, control: bool, first: bool) -> list[int]:
        key = (text, control, first)
        if key in self._tokens:
            self._tokens.move_to_end(key)
            return self._tokens[key]
        request = {"content": text, "parse_special": control, "add_special": first}
        ids: list[int] = self._ask(connection, "/tokenize", request)["tokens"]
        self._tokens[key] = ids
        if len(self._tokens) > _CACHED_TEXTS:
            self._tokens.popitem(last=False)
        return ids

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
        connection.request("POST", path, json.dumps(body), self._headers())
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ModelError(self._complaint(answer))
        return json.loads(answer)

    @contextmanager
    def _asking(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(self._address)  # a kept one would be closed by the server when idle
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise ModelError(f"{self.name} stopped answering: {error or type(error).__name__}.") from None
        finally:
            connection.close()

    async def close(self) -> None:
        await self._child.close()


def _completion(chunk: dict[str, Any]) -> Completion:
    usage, timings = chunk["usage"], chunk.get("timings", {})
    return Completion(
        finish_reason="length" if chunk["choices"][0]["finish_reason"] == "length" else "stop",
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        completion_tokens=usage["completion_tokens"],
        decode_tokens_per_s=timings.get("predicted_per_second", 0.0),
    )
