"""transformers models: any architecture it knows, in a process of its own, on a GPU where there is one."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chatbot.child import Child
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.errors import ModelError


def converted_folder(cache: Path, checksum: str) -> Path:
    """Where the GGUF file of that SHA-256 stands once it is converted, in this version's way of doing it."""
    return cache / "converted" / f"{checksum[:16]}-2"


def bytes_in_memory(folder: Path, size: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """About what the weights in `folder`, `size` bytes on the disk, take once `hf_model` has them in the numbers that
    are quickest here. Asked without torch, which would take seconds to be imported."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stored = str(config.get("dtype") or config.get("torch_dtype") or config["text_config"]["dtype"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        stored = ""
    try:
        short = "avx512_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        short = False
    short = short or sys.platform == "darwin" or Path("/dev/nvidiactl").exists()
    width = {"bfloat16": 2, "float16": 2, "float32": 4}.get(stored)
    return size if width is None else size * (2 if short else 4) // width


class HfResponder:
    """A model of transformers. See `hf_model` for how it answers, `hf_server` for what is said over the pipe."""

    def __init__(self, name: str, context_length: int, child: Child) -> None:
        self.name = name
        self.context_length = context_length
        self._child = child
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._dead = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def load(
        cls,
        path: Path,
        name: str,
        *,
        context_length: int,
        slots: int = 1,
        threads: int = 0,
        device: str = "",
        trust_remote_code: bool = False,
        batching: bool | None = None,
        converted: Path | None = None,
        adapter: Path | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> HfResponder:
        """Start the process on the model in the folder `path`, or in the GGUF file `path`.

        Args:
            path: safetensors with config.json and tokenizer; a GGUF file is dequantised into `converted`, once.
            context_length: tokens a prompt and its reply may have together.
            slots: conversations whose keys and values are kept between turns.
            threads: of the CPU; 0 as torch chooses.
            device: `cuda`, `mps`, `cpu`, or empty for the best there is.
            trust_remote_code: run Python code that lies beside the weights.
            batching: compute the replies under way in one pass, `slots` at once; None: on CUDA.
            adapter: folder of an adapter of peft that belongs to the model.
            tell: hears of what takes long.

        Raises:
            ModelError: it cannot be loaded.
        """
        if not path.exists():
            raise ModelError(f"The files of {name} are missing: {path}.")
        child = await Child.start(
            "chatbot.engines.hf_server",
            {
                "path": str(path),
                "name": name,
                "context": context_length,
                "slots": slots,
                "threads": threads,
                "device": device,
                "trust_remote_code": trust_remote_code,
                "batching": batching,
                "converted": str(converted),
                "adapter": None if adapter is None else str(adapter),
            },
        )
        try:
            while (said := await child.receive()) is not None and "notice" in said:
                tell(said["notice"])
            if said is None or "error" in said:
                reason = f"{name} cannot be loaded: its process ended; is there enough free memory?"
                raise ModelError(reason if said is None else said["error"])
        except BaseException:
            await child.close()
            raise
        return cls(name, context_length, child)

    @property
    def alive(self) -> bool:
        return self._child.alive

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        number, answers = await self._ask({"do": "count", "messages": [asdict(message) for message in messages]})
        try:
            return int(self._answer(await answers.get())["tokens"])
        finally:
            del self._waiting[number]

    async def reply(
        self, messages: Sequence[ChatMessage], options: GenerationOptions
    ) -> AsyncGenerator[str | Completion, None]:
        number, answers = await self._ask(
            {"do": "reply", "messages": [asdict(message) for message in messages], "options": asdict(options)}
        )
        ended = False
        try:
            while not ended:
                answer = await answers.get()
                ended = "piece" not in answer
                answer = self._answer(answer)
                yield Completion(**answer["completion"]) if ended else answer["piece"]
        finally:
            del self._waiting[number]
            if not ended:
                await self._child.send({"id": number, "do": "stop"})

    async def close(self) -> None:
        await self._child.close()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _ask(self, request: dict[str, Any]) -> tuple[int, asyncio.Queue[dict[str, Any]]]:
        number = next(self._numbers)
        answers = self._waiting[number] = asyncio.Queue()
        if self._dead:
            answers.put_nowait(self._death())
        await self._child.send({"id": number, **request})
        return number, answers

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer

    async def _read(self) -> None:
        while (said := await self._child.receive()) is not None:
            if (answers := self._waiting.get(said["id"])) is not None:
                answers.put_nowait(said)
        self._dead = True
        for answers in self._waiting.values():
            answers.put_nowait(self._death())

    def _death(self) -> dict[str, Any]:
        return {"error": f"{self.name} stopped answering: its process ended."}
