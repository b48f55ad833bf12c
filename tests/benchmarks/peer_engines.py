"""One engine in a process of its own, in an environment of its own: a script, driven over stdin by `engines`.

The first line says which engine and what it loads. Then `{"begin": SYSTEM}` starts a conversation, `{"say": TEXT}`
is answered with the times of a reply, `{"together": TEXTS}` with the tokens per second of all their replies at once.
It imports nothing of the project but for the project's own engine.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

Clock = list[float]
"""When the tokens of a reply came."""


class Engine(Protocol):
    def begin(self, system: str) -> None: ...

    def say(self, text: str, clock: Clock) -> int:
        """Answer; returns the number of tokens."""


class History:
    """A conversation that is sent whole each time."""

    messages: list[dict[str, str]]

    def begin(self, system: str) -> None:
        self.messages = [{"role": "system", "content": system}]

    def hear(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})


class XLlamaCpp(History):
    """xllamacpp in this process, its prompt cache on."""

    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        import xllamacpp

        self._tokens = tokens
        parameters = xllamacpp.CommonParams()
        parameters.model.path = model
        parameters.n_parallel = 16
        parameters.n_ctx = context * 16
        parameters.cpuparams.n_threads = threads
        parameters.verbosity = 0
        self._server = xllamacpp.Server(parameters)

    def say(self, text: str, clock: Clock) -> int:
        self.hear("user", text)
        reply, count = self._complete(self.messages, clock)
        self.hear("assistant", reply)
        return count

    def together(self, questions: list[str]) -> int:
        counts: list[int] = []

        def one(question: str) -> None:
            counts.append(self._complete([{"role": "user", "content": question}], [])[1])

        threads = [threading.Thread(target=one, args=[question]) for question in questions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)

    def _complete(self, messages: list[dict[str, str]], clock: Clock) -> tuple[str, int]:
        pieces: list[str] = []
        usage: dict[str, int] = {}

        def take(chunk: dict[str, Any]) -> bool:
            usage.update(chunk.get("usage") or {})
            if chunk["choices"] and (piece := chunk["choices"][0]["delta"].get("content")):
                clock.append(time.perf_counter())
                pieces.append(piece)
            return False

        request = {"messages": messages, "max_tokens": self._tokens, "temperature": 0, "stream": True}
        self._server.handle_chat_completions({**request, "stream_options": {"include_usage": True}}, take)
        return "".join(pieces), usage["completion_tokens"]


class LlamaCppPython(History):
    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        from llama_cpp import Llama

        self._tokens = tokens
        self._model = Llama(model, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)

    def say(self, text: str, clock: Clock) -> int:
        self.hear("user", text)
        pieces: list[str] = []
        for chunk in self._model.create_chat_completion(
            self.messages, max_tokens=self._tokens, temperature=0, stream=True
        ):
            if piece := chunk["choices"][0]["delta"].get("content"):
                clock.append(time.perf_counter())
                pieces.append(piece)
        self.hear("assistant", "".join(pieces))
        return len(pieces)


class Transformers(History):
    """`model.generate`, with nothing kept between turns."""

    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._tokens = tokens
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def say(self, text: str, clock: Clock) -> int:
        class Listener:
            def put(self, value: Any) -> None:
                clock.append(time.perf_counter())

            def end(self) -> None:
                pass

        self.hear("user", text)
        prompt = self._tokenizer.apply_chat_template(
            self.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = self._model.generate(**prompt, max_new_tokens=self._tokens, do_sample=False, streamer=Listener())
        del clock[0]  # it is handed the prompt first
        new = out[0][prompt["input_ids"].shape[1] :]
        self.hear("assistant", self._tokenizer.decode(new, skip_special_tokens=True))
        return len(new)


class CTranslate2(History):
    """int8, converted once."""

    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        import ctranslate2
        from transformers import AutoTokenizer

        converted = Path(__file__).parents[2] / ".bench" / "ctranslate2-int8"
        if not converted.exists():
            ctranslate2.converters.TransformersConverter(folder).convert(str(converted), quantization="int8")
            began_again()
        self._tokens = tokens
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = ctranslate2.Generator(str(converted), device="cpu", intra_threads=threads)

    def say(self, text: str, clock: Clock) -> int:
        self.hear("user", text)
        prompt = self._tokenizer.apply_chat_template(self.messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = []
        for step in self._model.generate_tokens(
            self._tokenizer.convert_ids_to_tokens(self._tokenizer.encode(prompt)),
            max_length=self._tokens,
            end_token=[self._tokenizer.eos_token_id],
        ):
            clock.append(time.perf_counter())
            ids.append(step.token_id)
        self.hear("assistant", self._tokenizer.decode(ids, skip_special_tokens=True))
        return len(ids)


class OpenVino:
    """openvino-genai, which reads the GGUF itself and keeps the conversation itself."""

    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        import openvino_genai

        self._tokens = tokens
        self._pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def begin(self, system: str) -> None:
        self._pipeline.finish_chat()
        self._pipeline.start_chat(system)

    def say(self, text: str, clock: Clock) -> int:
        def listen(piece: str) -> bool:
            clock.append(time.perf_counter())
            return False

        out = self._pipeline.generate([text], max_new_tokens=self._tokens, do_sample=False, streamer=listen)
        return int(out.perf_metrics.get_num_generated_tokens())


class Chatbot:
    """The whole product path: service, storage, events."""

    def __init__(self, model: str, folder: str, threads: int, tokens: int, context: int) -> None:
        import asyncio
        from contextlib import AsyncExitStack

        from chatbot.session import open_service
        from chatbot.settings import Settings

        self._loop = asyncio.new_event_loop()
        settings = Settings.load(temperature=0.0, max_tokens=tokens, context=context)
        self._service = self._loop.run_until_complete(AsyncExitStack().enter_async_context(open_service(settings)))
        self._loop.run_until_complete(self._service.models.load(lambda progress: None))
        self._conversation: str | None = None

    def begin(self, system: str) -> None:
        self._conversation = self._loop.run_until_complete(self._service.set_system(None, system))

    def say(self, text: str, clock: Clock) -> int:
        return self._loop.run_until_complete(self._turn(self._conversation, text, clock))

    def together(self, questions: list[str]) -> int:
        import asyncio

        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(self._turn(None, question, []) for question in questions)))

        return self._loop.run_until_complete(all_of_them())

    async def _turn(self, conversation: str | None, text: str, clock: Clock) -> int:
        from chatbot.events import Failed, TextDelta, Usage

        count = 0
        async for event in self._service.send(conversation, text):
            if isinstance(event, TextDelta):
                clock.append(time.perf_counter())
            elif isinstance(event, Usage):
                count = event.completion_tokens
            elif isinstance(event, Failed):
                raise RuntimeError(event.text)
        return count


ENGINES: dict[str, type[Any]] = {
    "chatbot": Chatbot,
    "xllamacpp": XLlamaCpp,
    "llama-cpp-python": LlamaCppPython,
    "transformers": Transformers,
    "ctranslate2": CTranslate2,
    "openvino-genai": OpenVino,
}
_began = time.perf_counter()


def began_again() -> None:
    """What came before was done once and for all, and is no part of loading."""
    global _began
    _began = time.perf_counter()


def memory_mb() -> float:
    """Of this process and its children, resident, without counting shared pages twice."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    kilobytes = 0
    for process in ["self", *children]:
        smaps = Path(f"/proc/{process}/smaps_rollup").read_text()
        kilobytes += int(next(line for line in smaps.splitlines() if line.startswith("Pss:")).split()[1])
    return kilobytes / 1024


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**values: float) -> None:
        print(json.dumps(values), file=answers, flush=True)

    asked = json.loads(sys.stdin.readline())
    engine = ENGINES[asked.pop("engine")](**asked)
    answer(load_s=time.perf_counter() - _began)
    for line in sys.stdin:
        task = json.loads(line)
        clock: Clock = []
        began = time.perf_counter()
        if "begin" in task:
            engine.begin(task["begin"])
            answer()
        elif "say" in task:
            count = engine.say(task["say"], clock)
            speed = (count - 1) / (clock[-1] - clock[0]) if count > 8 else 0.0
            answer(first_s=clock[0] - began, tokens_per_s=speed, memory_mb=memory_mb())
        else:
            count = engine.together(task["together"])
            answer(tokens_per_s=count / (time.perf_counter() - began))


main()
