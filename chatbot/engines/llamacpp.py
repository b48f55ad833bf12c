"""GGUF models through llama.cpp: one server process shared by all conversations."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
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

    def __init__(self, name: str, context_length: int, process: asyncio.subprocess.Process, key: str) -> None:
        self.name = name
        self.context_length = context_length
        self._process = process
        self._key = key
        self._address = ""
        self._tokens: OrderedDict[tuple[str, bool, bool], list[int]] = OrderedDict()
        self._rendered: tuple[tuple[ChatMessage, ...], list[int]] = ((), [])
        self._reading_on: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    @classmethod
    async def load(
        cls, path: Path, name: str, *, context_length: int, slots: int = 1, threads: int = 0
    ) -> LlamaCppResponder:
        """Start the server on the model at `path`; each of `slots` conversations has `context_length` tokens.

        Raises:
            ModelError: the file is missing, damaged or not a GGUF, or memory does not suffice.
        """
        if not path.is_file():
            raise ModelError(f"The file of {name} is missing: {path}.")
        key = secrets.token_urlsafe(24)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # modules of the folder the person stands in are none of its business
            "-m",
            "chatbot.engines.llamacpp_server",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        responder = cls(name, context_length, process, key)
        try:
            responder._address = await responder._start(
                {"path": str(path), "context": context_length, "slots": slots, "threads": threads, "key": key}
            )
        except BaseException:
            await responder.close()
            raise
        return responder

    async def _start(self, parameters: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(ConnectionError):  # it died at once: the line below is missing too
            self._process.stdin.write(json.dumps(parameters).encode() + b"\n")
            await self._process.stdin.drain()
        async for line in self._process.stdout:
            with suppress(ValueError, TypeError, KeyError):  # anything else that a native library prints
                address: str = json.loads(line)["address"]
                return urlsplit(address).netloc
        raise ModelError(
            f"{self.name} cannot be loaded: {parameters['path']} is damaged, not a GGUF of a model that "
            "llama.cpp knows, or too large for the free memory."
        )

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
            "stop": list(options.stop),
            "stream": True,
            "cache_prompt": True,
        }
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[dict[str, Any] | ModelError | None] = asyncio.Queue()

        def put(piece: dict[str, Any] | ModelError | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        connection = http.client.HTTPConnection(self._address)
        await asyncio.to_thread(self._connect, connection)
        line = connection.sock

        def stream() -> None:
            try:
                for chunk in self._stream(connection, request):
                    put(chunk)
                put(None)
            except ModelError as error:
                put(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                put(ModelError(f"{self.name} stopped answering: {error or type(error).__name__}."))
            finally:
                connection.close()

        threading.Thread(target=stream, name="llamacpp-reply", daemon=True).start()
        try:
            last: dict[str, Any] = {}
            said = ""
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, ModelError):
                    raise piece
                last = piece
                if text := piece["choices"][0]["text"]:
                    said += text
                    yield text
            if "usage" not in last:
                raise ModelError(f"{self.name} broke off in the middle of its reply.")
            yield _completion(last)
            following = [*messages, ChatMessage("assistant", said), ChatMessage("user", "")]
            threading.Thread(target=self._read_on, args=[following], name="llamacpp-read-on", daemon=True).start()
        finally:
            with suppress(OSError):  # wakes the thread, which closes; the server then stops the reply
                line.shutdown(socket.SHUT_RDWR)

    def _read_on(self, messages: Sequence[ChatMessage]) -> None:
        """Let the server read a prompt up to the content of its last message. Runs in a thread."""
        with suppress(ModelError), self._asking() as connection:
            with self._lock:
                ids, start = self._render(connection, messages)
            self._reading_on = connection
            self._ask(connection, "/completion", {"prompt": ids[:start], "n_predict": 0, "cache_prompt": True})
            self._reading_on = None

    def _stop_reading_on(self) -> None:
        connection, self._reading_on = self._reading_on, None
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except OSError as error:
            raise ModelError(f"{self.name} stopped answering: {error}.") from None

    def _stream(self, connection: http.client.HTTPConnection, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        connection.request("POST", "/v1/completions", json.dumps(request), self._headers())
        response = connection.getresponse()
        if response.status != 200:
            raise ModelError(self._complaint(response.read()))
        for line in response:
            field, _, data = line.decode().strip().partition(": ")
            if field == "error":
                raise ModelError(self._complaint(data.encode()))
            if field == "data" and data != "[DONE]":
                chunk = json.loads(data)
                if "error" in chunk:
                    raise ModelError(self._complaint(data.encode()))
                yield chunk

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
                    self._rendered = key, self._render(connection, messages)[0]
            return self._rendered[1]

    def _render(
        self, connection: http.client.HTTPConnection, messages: Sequence[ChatMessage]
    ) -> tuple[list[int], int]:
        """Token ids of the prompt, and how many of them stand before the content of the last message."""
        marks = [f"\ue000{secrets.token_hex(8)}\ue001" for _ in messages]
        marked = [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)]
        template: str = self._ask(connection, "/apply-template", {"messages": marked})["prompt"]
        ids: list[int] = []
        start = 0

        def add(text: str, *, control: bool, first: bool = False) -> None:
            if text or first:
                ids.extend(self._tokenize(connection, text, control, first))

        rest = template
        for message, mark in zip(messages, marks, strict=True):
            before, found, after = rest.partition(mark)
            if found:  # a template may leave a message out: it has no system role, say
                add(before, control=True, first=rest is template)
                start = len(ids)
                add(message.content, control=False)
                rest = after
        add(rest, control=True, first=rest is template)
        return ids, start

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
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout=5)
        except TimeoutError:  # still in native code, loading
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _completion(chunk: dict[str, Any]) -> Completion:
    usage, timings = chunk["usage"], chunk.get("timings", {})
    return Completion(
        finish_reason="length" if chunk["choices"][0]["finish_reason"] == "length" else "stop",
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        completion_tokens=usage["completion_tokens"],
        decode_tokens_per_s=timings.get("predicted_per_second", 0.0),
    )
