"""A transformers model in this process: prompts, prompt caches, and replies token by token. Imports torch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from chatbot.device import computes_bf16
from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.hf_batching import Batching
from chatbot.engines.hf_memories import Memories, Memory
from chatbot.engines.prompt import PLAIN_STOP, PLAIN_TEMPLATE, Frames, build_prompt, end_of_turn, without_system
from chatbot.engines.stops import StopTexts
from chatbot.errors import ModelError

PREFILL_CHUNK = 256
"""Tokens read at once, at most: between two chunks a reply can be stopped, and others take their turn."""

REPEAT_LAST_N = 256

_BEFORE = 16
"""Tokens before a reply that is gone on with: what stands there decides whether its next one begins with a space."""


class HfModel:
    """A causal language model with its tokenizer.

    Args:
        folder: with config.json, safetensors and a tokenizer.
        context_length: tokens a prompt and its reply may have together.
        memories: conversations whose keys and values are kept between turns.
        threads: of the CPU; 0 as torch chooses.
        device: `cuda`, `mps`, `cpu`, or empty for the best there is.
        trust_remote_code: run Python code that lies beside the weights.
        batching: compute the replies under way in one pass, `memories` at once; None: on CUDA.
        adapter: folder of an adapter of peft that belongs to the model; its tokenizer is taken, where it has one.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        context_length: int,
        memories: int = 1,
        threads: int = 0,
        device: str = "",
        trust_remote_code: bool = False,
        batching: bool | None = None,
        adapter: Path | None = None,
    ) -> None:
        self.name = name
        self.context_length = context_length
        if threads:
            torch.set_num_threads(threads)
        self._device = _device(name, device or _best_device())
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                tokenizer_folder(folder, adapter), trust_remote_code=trust_remote_code
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=_dtype(self._device),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
            if adapter is not None:
                model.load_adapter(str(adapter))
            self._model = model.to(self._device).eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            if "trust_remote_code" in str(error):
                raise ModelError(
                    f"{name} needs Python code of its author; `chatbot models use {name.partition('@')[0]} "
                    "--trust-remote-code` lets that code run on this machine, as you."
                ) from error
            raise ModelError(f"{name} cannot be loaded: {_first_sentence(error)}") from error
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError(f"{name} cannot be loaded: its tokenizer has no tokenizer.json.")
        self._tokenizer = tokenizer
        self._plain = not tokenizer.chat_template
        self._ends = _end_tokens(self._model, tokenizer)
        # Where the model cannot be told to, it computes the logits of every token that it reads.
        last_alone = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._reading: dict[str, Any] = {"use_cache": True} | ({"logits_to_keep": 1} if last_alone else {})
        self._memories = Memories(self._model, max(1, memories))
        self._batching: Batching | None = None
        wanted = Batching.available() and (self._device.type == "cuda" if batching is None else batching)
        if wanted and self._model.config._attn_implementation == "sdpa":  # with others, batches would change it
            self._batching = Batching(
                self._model, sorted(self._ends), context_length=context_length, slots=max(1, memories)
            )
        self._frames = Frames()
        self._counted: tuple[tuple[ChatMessage, ...], list[int]] = ((), [])

    @property
    def network(self) -> Any:
        """The model of transformers itself."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._tokenizer

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of the prompt that `messages` make."""
        counted, key = self._counted, tuple(messages)
        if counted[0] != key:  # what was counted last is mostly what is sent next
            try:
                ids = build_prompt(messages, self._frames, self._render, self._tokenize).ids
            except Exception:  # a template refuses in whatever way its author chose
                if not any(message.role == "system" for message in messages):
                    raise
                rest = without_system(messages)
                ids = build_prompt(rest, self._frames, self._render, self._tokenize).ids
            counted = self._counted = key, ids
        return counted[1]

    @torch.inference_mode()
    def reply(self, messages: Sequence[ChatMessage], options: GenerationOptions) -> Generator[str | Completion]:
        """Generate the reply: pieces of text, an empty one wherever others may take their turn, one Completion.

        Closing the iterator stops it; what was read stays known for the next turn.

        Raises:
            ModelError: the prompt does not fit.
        """
        ids = self.prompt(messages)
        if len(ids) >= self.context_length:
            raise ModelError(f"The prompt has {len(ids)} tokens; {self.name} takes {self.context_length}.")
        room = min(options.max_tokens, self.context_length - len(ids))
        resumed = messages[-1].content if messages[-1].role == "assistant" else ""
        if self._batching is not None and not self._batching.running:
            self._batching = None  # and its memory is free
        if self._batching is not None and self._batching.can(options):
            said = False
            try:
                for piece in self._compose(ids, 0, self._batching.tokens(ids, room, options), options, resumed):
                    said = said or piece != ""
                    yield piece
                return
            except ModelError:
                if said:
                    raise  # else it is made on its own
        with self._memories.of(ids) as memory:
            tokens = self._tokens(memory, ids, room, options)
            yield from self._compose(ids, len(memory.ids), tokens, options, resumed)

    def _tokens(self, memory: Memory, ids: list[int], room: int, options: GenerationOptions) -> Generator[int | None]:
        """Up to `room` tokens after the prompt `ids`; None where others may take their turn."""
        while len(ids) - len(memory.ids) > PREFILL_CHUNK:
            self._read(memory, ids[len(memory.ids) : len(memory.ids) + PREFILL_CHUNK])
            yield None
        logits = self._read(memory, ids[len(memory.ids) :])
        choose = _Sampler(options, self._device)
        for count in range(room):
            token = choose(logits, memory.ids)
            yield token
            if count + 1 < room:
                logits = self._read(memory, [token])

    def _compose(
        self, ids: list[int], cached: int, tokens: Generator[int | None], options: GenerationOptions, resumed: str
    ) -> Generator[str | Completion]:
        """The text of `tokens`, up to one that ends the reply or to a text that does. `resumed`: what there is of
        the reply already."""
        stops = StopTexts([*options.stop, *([PLAIN_STOP] if self._plain else [])])
        # Half a character before it would be given once more, with all before that.
        before = ids[-_BEFORE:] if resumed and not resumed.endswith("\ufffd") else []
        stream = DecodeStream(before, skip_special_tokens=True)
        count, reason, started = 0, "length", 0.0
        # The reply to a transcript begins with the space after "Assistant:".
        begun = bool(resumed) or not self._plain
        for token in tokens:
            if token is None:
                yield ""
                continue
            started = started or time.perf_counter()
            count += 1
            if token in self._ends:
                reason = "stop"
                break
            text = stream.step(self._tokenizer.backend_tokenizer, token) or ""
            if not begun:
                text = text.lstrip()
                begun = bool(text)
            yield stops.add(text)
            if stops.found:
                reason = "stop"
                break
        tokens.close()
        if rest := stops.rest():
            yield rest
        seconds = time.perf_counter() - started
        yield Completion(
            finish_reason="stop" if reason == "stop" else "length",
            prompt_tokens=len(ids),
            cached_tokens=cached,
            completion_tokens=count,
            decode_tokens_per_s=(count - 1) / seconds if count > 1 else 0.0,
        )

    def _read(self, memory: Memory, ids: list[int]) -> torch.Tensor:
        """Read tokens on; returns the logits after the last, (vocabulary,) in float32."""
        tokens = torch.tensor([ids], device=self._device)
        read, memory.ids = memory.ids, []  # should it fail, what the cache then holds is not known
        with nullcontext() if self._batching is None else self._batching.paused():
            output = self._model(input_ids=tokens, past_key_values=memory.cache, **self._reading)
        memory.cache = output.past_key_values
        read += ids
        memory.ids = read
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits

    def _render(self, messages: list[dict[str, str]]) -> str:
        template = PLAIN_TEMPLATE if self._plain else None
        return str(
            self._tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )

    def _tokenize(self, text: str, control: bool, first: bool) -> list[int]:
        # A template with control tokens writes the beginning of the text itself.
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=first and self._plain, split_special_tokens=not control
        ).input_ids
        return ids


class _Sampler:
    """Draws the next token. Temperature 0 takes the likeliest."""

    def __init__(self, options: GenerationOptions, device: torch.device) -> None:
        self._greedy = options.temperature == 0
        self._penalty = (
            RepetitionPenaltyLogitsProcessor(options.repeat_penalty) if options.repeat_penalty != 1 else None
        )
        self._warpers = LogitsProcessorList()
        if not self._greedy:
            self._warpers.append(TemperatureLogitsWarper(options.temperature))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(options.top_p))
        self._random = torch.Generator(device=device)
        if options.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(options.seed)

    def __call__(self, logits: torch.Tensor, ids: list[int]) -> int:
        """The id of the next token, from logits (vocabulary,) and the ids so far."""
        scores: Any = logits[None]
        lately: Any = torch.tensor([ids[-REPEAT_LAST_N:]], device=logits.device)
        if self._penalty is not None:
            scores = self._penalty(lately, scores)
        if self._greedy:
            return int(scores.argmax())
        probabilities = self._warpers(lately, scores).softmax(-1)
        return int(torch.multinomial(probabilities[0], 1, generator=self._random))


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(name: str, wanted: str) -> torch.device:
    """Raises ModelError where this machine, or this torch, has no such device."""
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{name} cannot be loaded: torch finds no device '{wanted}' here; CHATBOT_DEVICE may be cuda, mps, cpu, "
            "or empty for the best there is."
        ) from error
    return device


def _dtype(device: torch.device) -> torch.dtype:
    if computes_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template:  # of an adapter, whose base may end its texts otherwise
        ends.add(end_of_turn(tokenizer))
    return {end for end in ends if end is not None}


def _first_sentence(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line[:300].rstrip(".") + "."


def tokenizer_folder(base: Path, adapter: Path | None) -> Path:
    """Where the tokenizer of a model is: beside the adapter that is added to it, where one came along."""
    return adapter if adapter is not None and (adapter / "tokenizer.json").is_file() else base
