"""From samples to token ids, and which of them are learned.

A conversation becomes the very ids that the engines send: the text of the chat template with its control tokens, the
messages without, so that "<|im_end|>" typed by a person stays text. Learned are the replies, and the token that ends
each.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chatbot.errors import UserError
from chatbot.gpt.samples import Dialogue, Text, Turn

TRANSCRIPT = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The chat template of a base that has none."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template of a base that has none, but whose tokenizer knows these control tokens."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of one sample; `learns` says of each whether it is learned; `size` in bytes of UTF-8 of what is learned."""

    ids: list[int]
    learns: list[bool]
    size: int


class Encoder:
    """Encodes samples for a model.

    Args:
        tokenizer: of transformers, with a chat template where conversations are to be encoded.
        ends: ids of tokens that end a reply.
        longest: tokens of a row; what is longer is cut into parts.
    """

    def __init__(self, tokenizer: Any, ends: set[int], longest: int) -> None:
        self._tokenizer, self._ends, self._longest = tokenizer, ends, longest
        self.parts = 0
        """Conversations that were too long and were cut into parts, so far."""

    def text(self, sample: Text) -> Tokens:
        """A text between two marks of its end: it begins after nothing, and that it ends is learned too."""
        ids = self._plain(sample.text)
        # The end of a text, where the tokenizer has a token for it: the end of a turn is another thing.
        end = self._tokenizer.get_vocab().get("<|endoftext|>", self._tokenizer.eos_token_id)
        return Tokens(
            [end, *ids, end],
            [False] + [True] * (len(ids) + 1),
            len(sample.text.encode()),
        )

    def dialogue(self, sample: Dialogue) -> Iterator[Tokens]:
        """A conversation, in parts where it is longer than a row: each begins with the system prompt.

        Raises:
            UserError: the chat template refuses it.
        """
        whole = self.rendered(sample.turns, sample.place)
        if len(whole.ids) <= self._longest:
            if any(whole.learns):
                yield whole
            return
        self.parts += 1
        system = sample.turns[:1] if sample.turns[0].role == "system" else ()
        rest = sample.turns[len(system) :]
        starts = [n for n, turn in enumerate(rest) if turn.role == "user"] or [0]
        starts[0] = 0
        exchanges = [rest[begin:end] for begin, end in pairwise([*starts, len(rest)])]
        held: list[Turn] = []
        last: Tokens | None = None
        for exchange in exchanges:
            grown = self.rendered((*system, *held, *exchange), sample.place)
            if len(grown.ids) > self._longest and held:
                if last is not None and any(last.learns):
                    yield last
                held = []
                grown = self.rendered((*system, *exchange), sample.place)
            held += exchange
            last = _cut(grown, self._longest)
        if last is not None and any(last.learns):
            yield last

    def rendered(self, turns: Sequence[Turn], place: str) -> Tokens:
        """A conversation, however long it is. Raises UserError where the chat template refuses it."""
        marks = [f"\ue000{secrets.token_hex(8)}\ue001" for _ in turns]
        said = [{"role": turn.role, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
        try:
            rest = str(self._tokenizer.apply_chat_template(said, tokenize=False))
        except Exception as error:  # a template refuses in whatever way its author chose
            raise UserError(
                f"{place}: the chat template of the base model refuses this conversation: {error}."
            ) from None
        ids: list[int] = []
        learns: list[bool] = []
        size, ended = 0, True
        for turn, mark in zip(turns, marks, strict=True):
            before, found, after = rest.partition(mark)
            if not found:  # a template may leave a message out
                continue
            self._template(before, ids, learns, ended=ended)
            body = self._plain(turn.content)
            learned = turn.role == "assistant" and turn.learns
            ids += body
            learns += [learned] * len(body)
            size += len(turn.content.encode()) * learned
            rest, ended = after, not learned
        self._template(rest, ids, learns, ended=ended)
        return Tokens(ids, learns, size)

    def _template(self, text: str, ids: list[int], learns: list[bool], *, ended: bool) -> None:
        """Append text of the template; after a reply that is learned it is learned up to the token that ends it."""
        new: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids if text else []
        end = next((place for place, token in enumerate(new) if token in self._ends), -1)
        ids += new
        learns += [not ended and place <= end for place in range(len(new))]

    def _plain(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids


def _cut(tokens: Tokens, longest: int) -> Tokens:
    """The part of a single exchange that fits: the reply from its beginning, and what stood before it, shortened."""
    if len(tokens.ids) <= longest:
        return tokens
    first = tokens.learns.index(True) if True in tokens.learns else 0
    begin = 0 if first < longest // 2 else first - longest // 2
    learned = sum(tokens.learns[begin : begin + longest])
    share = learned / max(1, sum(tokens.learns))
    return Tokens(
        tokens.ids[begin : begin + longest], tokens.learns[begin : begin + longest], round(tokens.size * share)
    )


def use_template(tokenizer: Any) -> None:
    """Give a tokenizer without a chat template one that it has the tokens for."""
    if tokenizer.chat_template:
        return
    known = tokenizer.get_vocab()
    if {"<|im_start|>", "<|im_end|>"} <= known.keys():
        tokenizer.chat_template = CHATML
        tokenizer.eos_token = "<|im_end|>"
    else:
        tokenizer.chat_template = TRANSCRIPT
