"""Several replies at once by transformers' own continuous batching: one pass of the model gives each a token."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from typing import Any
from uuid import uuid4

from transformers import ContinuousBatchingConfig, GenerationConfig

from chatbot.engines.base import GenerationOptions
from chatbot.errors import ModelError

PAGE = 256
_PATIENCE_S = 0.005


class Batching:
    """Generates for as many as `slots` conversations at once, each of `context_length` tokens.

    What conversations have in common, and what a conversation has been read of before, is kept in pages of
    `PAGE` tokens and read once.

    Args:
        model: a causal language model of transformers.
        ends: ids of the tokens that end a reply.
    """

    def __init__(self, model: Any, ends: Sequence[int], *, context_length: int, slots: int) -> None:
        self._ends = list(ends)
        pages = math.ceil(context_length / PAGE) + 1
        self._manager = model.init_continuous_batching(
            # The values here only have it make the processors; every request brings its own.
            GenerationConfig(  # type: ignore[no-untyped-call]  # untyped there
                do_sample=True, temperature=0.5, top_p=0.5, top_k=1, eos_token_id=self._ends
            ),
            ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=pages * slots,
                max_requests_per_batch=slots,
                per_request_processors=True,
                auto_switch_to_flash=False,
            ),
        )
        self._came: dict[str, deque[Any]] = {}
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._manager.start()

    @staticmethod
    def available() -> bool:
        """Whether transformers leaves a model that it batches as it is, for replies made beside the batches: since
        5.19."""
        return "auto_switch_to_flash" in {field.name for field in fields(ContinuousBatchingConfig)}

    @staticmethod
    def can(options: GenerationOptions) -> bool:
        """Whether a request may have these options: it has no seed and no penalty of its own."""
        return options.seed is None and options.repeat_penalty == 1

    @property
    def running(self) -> bool:
        """False once it has failed for good."""
        return bool(self._manager.is_running())

    def tokens(self, ids: list[int], room: int, options: GenerationOptions) -> Generator[int | None]:
        """Up to `room` tokens after the prompt `ids`; None wherever none has come yet.

        Raises:
            ModelError: it failed.
        """
        number = uuid4().hex
        came = self._came[number] = deque()
        given = 0
        try:
            self._manager.add_request(
                ids,
                request_id=number,
                max_new_tokens=room,
                streaming=True,
                eos_token_id=self._ends,
                temperature=float(options.temperature or 1),
                # Of several that are equally likely, `top_k` alone leaves all, to be drawn from.
                top_p=float(options.top_p) if options.temperature else 1e-6,
                top_k=self._vocabulary if options.temperature else 1,
            )
            while True:
                self._collect()
                if not came:
                    if not self.running:
                        raise ModelError("The batches of replies failed; the next reply is made on its own.")
                    yield None
                    continue
                output = came.popleft()
                if output.error:
                    raise ModelError(f"The batch of replies failed: {output.error}")
                for token in output.generated_tokens[given:]:
                    given += 1
                    yield token
                if output.is_finished():
                    return
        finally:
            del self._came[number]
            self._manager.cancel_request(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The model is the caller's alone for as long as this is open."""
        with ExitStack() as stack:
            with suppress(RuntimeError):  # it has ended: nobody else uses the model
                stack.enter_context(self._manager.pause())
            yield

    def close(self) -> None:
        """Stop, once the replies under way have ended."""
        self._manager.stop(block=True, timeout=10)

    def _collect(self) -> None:
        """Take what has come for whomever; wait a moment where nothing has."""
        patience = 0.0 if any(self._came.values()) else _PATIENCE_S
        while (output := self._manager.get_result(timeout=patience)) is not None:
            patience = 0.0
            if output.request_id in self._came:
                self._came[output.request_id].append(output)
