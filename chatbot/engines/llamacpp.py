"""GGUF models through llama.cpp: one server process shared by all conversations."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatbot.child import Child
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.head_start import start_server
from chatbot.engines.llamacpp_client import LlamaCppClient
from chatbot.engines.prompt import PLAIN_STOP, PLAIN_TEMPLATE, Frames, Prompt, build_prompt, without_system
from chatbot.engines.prompt_cache import WORTH_KEEPING, KeptPrompt, PromptCache, common_prefix
from chatbot.errors import ModelError

StartServer = Callable[[dict[str, Any]], Awaitable[tuple[Child, str]]]

KEEPING_S = 2.0
"""Closing takes no longer than this for the sake of the next start."""
_CACHED_TEXTS = 4096
_LAST = ["content", "stop", "stop_type", "id_slot", "tokens_evaluated", "tokens_predicted", "timings"]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a slot of the server read last, as far as is known; `kept`: it came from the disk."""

    tokens: list[int]
    generation: str
    kept: bool = False


class LlamaCppResponder:
    """A GGUF model in a server process of its own, on loopback behind a random key.

    A prompt is assembled from token ids: the text of the chat template with its control tokens, the text of
    messages without, so that "<|im_end|>" typed by a person stays text. The ids of each text are kept, so that a
    turn tokenizes only what is new.

    When a reply has ended that may be followed, and no other is under way, the server reads on to where the person's
    next message will begin: the control tokens in between are certain, and the next reply comes sooner by the time
    they take.
    """

    def __init__(
        self,
        name: str,
        context_length: int,
        child: Child,
        client: LlamaCppClient,
        *,
        slots: int,
        prompts: PromptCache | None = None,
        stop: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.context_length = context_length
        self._child = child
        self.client = client
        self._slots = slots
        self._prompts = prompts
        self._stop = stop
        self._asked = 0  # replies, ever
        self._replies = 0  # under way
        self._frames = Frames()
        self._tokens: OrderedDict[tuple[str, bool, bool], list[int]] = OrderedDict()
        self._rendered: tuple[tuple[ChatMessage, ...], list[int]] = ((), [])
        self._reading_on: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._read: dict[int, _Read] = {}  # by slot of the server, the one used last at the end
        self._lock = threading.Lock()  # of what threads share: not while the server is asked, which others may be too

    @classmethod
    async def load(
        cls,
        path: Path,
        name: str,
        *,
        context_length: int,
        slots: int = 1,
        threads: int = 0,
        chat_template: str = "",
        speculate: bool = True,
        prompts: PromptCache | None = None,
        adapter: Path | None = None,
        start: StartServer = start_server,
    ) -> LlamaCppResponder:
        """Start the server on the model at `path`; each of `slots` conversations has `context_length` tokens.

        `chat_template` is for a model that has none, or another. With `speculate`, text that was
        there before is guessed ahead and checked in one go: the reply is the same, sooner where it repeats. What has
        been read of long conversations is kept in `prompts` for the next start. `adapter` is a GGUF file, which is
        added to the weights. `start` starts the server.

        Raises:
            ModelError: the file is missing, damaged or not a GGUF, or memory does not suffice.
        """
        if not path.is_file():
            raise ModelError(f"The file of {name} is missing: {path}.")
        child, key = await start(
            {
                "path": str(path),
                "context": context_length,
                "slots": slots,
                "threads": threads,
                "speculate": speculate,
            }
            | ({"chat_template": chat_template} if chat_template else {})
            | ({} if prompts is None else {"prompts": str(prompts.folder)})
            | ({} if adapter is None else {"adapter": str(adapter)}),
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
        client = LlamaCppClient(name, urlsplit(str(said["address"])).netloc, key)
        stop = (PLAIN_STOP,) if chat_template == PLAIN_TEMPLATE else ()
        return cls(name, context_length, child, client, slots=slots, prompts=prompts, stop=stop)

    @property
    def alive(self) -> bool:
        return self._child.alive

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return len(await asyncio.to_thread(self._prompt, messages))

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        self._replies += 1
        self._stop_reading_on()
        last: dict[str, Any] = {}
        said = generation = ""
        try:
            counted, prompt = self._rendered  # what was counted last is mostly what is sent next
            if counted != tuple(messages):
                prompt = await asyncio.to_thread(self._prompt, messages)
            if self._prompts is not None:
                generation = self._prompts.generation()
                if self._replies == 1:  # the server would wait for the others
                    await asyncio.to_thread(self._restore, self._prompts, prompt, generation)
            request = {
                "prompt": prompt,
                "n_predict": options.max_tokens,
                "temperature": options.temperature,
                "top_p": options.top_p,
                "repeat_penalty": options.repeat_penalty,
                "repeat_last_n": 256,
                "seed": -1 if options.seed is None else options.seed,
                "stop": [*options.stop, *self._stop],
                "stream": True,
                "cache_prompt": True,
                "response_fields": _LAST,
            }
            async with aclosing(self.client.stream("/completion", request)) as chunks:
                async for chunk in chunks:
                    last = chunk
                    if text := chunk["content"]:
                        said += text
                        yield text
        finally:
            self._replies -= 1
        if not last.get("stop"):
            raise ModelError(f"{self.name} broke off in the middle of its reply.")
        self._has_read(last["id_slot"], _Read(prompt, generation) if options.followed else None)
        if options.followed and not self._replies:  # others would wait
            self._begin_reading_on(messages, said, generation)
        yield _completion(last)

    def _begin_reading_on(self, messages: Sequence[ChatMessage], said: str, generation: str) -> None:
        before = list(messages)
        if before[-1].role == "assistant":
            said = before.pop().content + said
        following = [*before, ChatMessage("assistant", said), ChatMessage("user", "")]
        self._reader = threading.Thread(
            target=self._read_on, args=[following, generation, self._asked], name="llamacpp-read-on", daemon=True
        )
        self._reader.start()

    def _read_on(self, messages: Sequence[ChatMessage], generation: str, asked: int) -> None:
        """Let the server read a prompt up to the content of its last message, unless another reply was asked for
        since. Runs in a thread."""
        with suppress(ModelError):
            with self.client.connected() as connection:
                prompt = self._render(connection, messages)
            ids = prompt.ids[: prompt.last]
            with self.client.connected() as connection:
                connection.connect()  # first, so that from then on it can be shut down
                with self._lock:
                    if asked != self._asked:
                        return
                    self._reading_on = connection.sock
                request = {"prompt": ids, "n_predict": 0, "cache_prompt": True}
                slot = self.client.ask(connection, "/completion", request)["id_slot"]
            self._has_read(slot, _Read(ids, generation))

    def _has_read(self, slot: int, read: _Read | None) -> None:
        """`read`: None where it is of no use any more."""
        with self._lock:
            self._read.pop(slot, None)
            if read is not None:
                self._read[slot] = read

    def _stop_reading_on(self) -> None:
        with self._lock:
            self._asked += 1
            reading_on, self._reading_on = self._reading_on, None
        if reading_on is not None:
            with suppress(OSError):  # it has ended
                reading_on.shutdown(socket.SHUT_RDWR)

    def _restore(self, prompts: PromptCache, prompt: Sequence[int], generation: str) -> None:
        """Where much of a prompt was read before the last restart, fetch that. Runs in a thread."""
        with self._lock:
            known = dict(self._read)
        read = max((common_prefix(read.tokens, prompt) for read in known.values()), default=0)
        if len(prompt) - read < WORTH_KEEPING:
            return
        kept, length = prompts.best(prompt)
        if kept is None or length - read < WORTH_KEEPING:
            return
        slot = next((slot for slot in range(self._slots) if slot not in known), next(iter(known), 0))
        try:
            with self.client.connected() as connection:
                self.client.ask(connection, f"/slots/{slot}?action=restore", {"filename": kept.file.name})
            self._has_read(slot, _Read(kept.tokens, generation, kept=True))
        except ModelError:  # it is of no use, then
            prompts.drop(kept.file)

    def _keep(self, prompts: PromptCache) -> None:
        """Keep what the server has read. Runs in a thread."""
        if self._reader is not None and len(self._rendered[1]) >= WORTH_KEEPING:
            self._reader.join()
        for slot, read in list(self._read.items()):
            if len(read.tokens) >= WORTH_KEEPING and not read.kept and read.generation == prompts.generation():
                file = prompts.new_file()
                with suppress(ModelError, OSError), self.client.connected() as connection:
                    self.client.ask(connection, f"/slots/{slot}?action=save", {"filename": file.name})
                    prompts.keep(KeptPrompt(file, read.tokens), read.generation)

    def _prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of the prompt. Runs in a thread."""
        rendered, key = self._rendered, tuple(messages)
        if rendered[0] != key:
            with self.client.connected() as connection:
                rendered = self._rendered = key, self._render(connection, messages).ids
        return rendered[1]

    def _render(self, connection: http.client.HTTPConnection, messages: Sequence[ChatMessage]) -> Prompt:
        def render(marked: list[dict[str, str]]) -> str:
            prompt: str = self.client.ask(connection, "/apply-template", {"messages": marked})["prompt"]
            return prompt

        tokenize = partial(self._tokenize, connection)
        try:
            return build_prompt(messages, self._frames, render, tokenize)
        except ModelError:
            if not any(message.role == "system" for message in messages):
                raise
            return build_prompt(without_system(messages), self._frames, render, tokenize)

    def _tokenize(self, connection: http.client.HTTPConnection, text: str, control: bool, first: bool) -> list[int]:
        key = (text, control, first)
        with self._lock:
            if key in self._tokens:
                self._tokens.move_to_end(key)
                return self._tokens[key]
        request = {"content": text, "parse_special": control, "add_special": first}
        ids: list[int] = self.client.ask(connection, "/tokenize", request)["tokens"]
        with self._lock:
            self._tokens[key] = ids
            if len(self._tokens) > _CACHED_TEXTS:
                self._tokens.popitem(last=False)
        return ids

    async def close(self) -> None:
        if self._prompts is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self._keep, self._prompts), KEEPING_S)
        await self._child.close()


def _completion(chunk: dict[str, Any]) -> Completion:
    return Completion(
        finish_reason="length" if chunk["stop_type"] == "limit" else "stop",
        prompt_tokens=chunk["tokens_evaluated"],
        cached_tokens=chunk["timings"]["cache_n"],
        completion_tokens=chunk["tokens_predicted"],
        decode_tokens_per_s=chunk["timings"]["predicted_per_second"],
    )


def prompt_format() -> str:
    """Names the format of what llama.cpp writes of a prompt: that of its own version."""
    return f"llamacpp-{version('xllamacpp')}"
