"""From samples to token ids, and which of them are learned.

A conversation becomes the very ids that the engines send (`chatbot.engines.prompt`), and a reply after them: the text
of the chat template with its control tokens, the messages without, so that "<|im_end|>" typed by a person stays text.
Learned are the replies, from where their prompt ends, and the token that ends each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import dropwhile, groupby, pairwise
from typing import Any

from chatbot.engines.base import ChatMessage
from chatbot.engines.prompt import Frame, Frames, without_system
from chatbot.errors import UserError
from chatbot.gpt.samples import Dialogue, Text, Turn

TRANSCRIPT = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.content }}\n\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""The chat template of a base that has none. Its prompts end where a reply begins, after the space."""

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
        self._ids = lru_cache(maxsize=256)(self._tokenize)
        self._answered, self._opened = Frames(), Frames()
        self.parts = 0
        """Conversations that were too long and were cut into parts, so far."""

    def text(self, sample: Text) -> Tokens:
        """A text between two marks of its end: it begins after nothing, and that it ends is learned too."""
        ids = self._tokenize(sample.text, False)
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
        parts = [spoken(sample.turns)]
        if not parts[0]:  # nothing was answered
            return
        if self._length(parts[0], sample.place) > self._longest:
            self.parts += 1
            parts = list(self._parts(parts[0], sample.place))
        for part in parts:
            for turns in self._as_sent(self._taken(part, sample.place)):
                tokens = _cut(self.rendered(turns, sample.place), self._longest)
                if any(tokens.learns):
                    yield tokens

    def _parts(self, turns: Sequence[Turn], place: str) -> Iterator[Sequence[Turn]]:
        """As many whole exchanges at a time as fit a row; one that does not fit is alone."""
        system = turns[:1] if turns[0].role == "system" else ()
        rest = turns[len(system) :]
        starts = [n for n, turn in enumerate(rest) if turn.role == "user"]
        held: list[Turn] = []
        for exchange in (rest[begin:end] for begin, end in pairwise([*starts, len(rest)])):
            if held and self._length((*system, *held, *exchange), place) > self._longest:
                yield (*system, *held)
                held = []
            held += exchange
        yield (*system, *held)

    def _as_sent(self, turns: Sequence[Turn]) -> list[Sequence[Turn]]:
        """The conversation; each reply apart, where it does not stand there later on as when it was the newest: some
        templates move the system prompt to the newest message, or take thoughts out of older replies."""
        replies = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.learns]
        said = [self._said(turns[: n + 1]) for n in replies]
        if all(later[: len(one)] == one for one, later in pairwise(said)):
            return [turns]
        return [(*(replace(turn, learns=False) for turn in turns[:n]), turns[n]) for n in replies]

    def _said(self, turns: Sequence[Turn]) -> list[int]:
        """Everything up to the last word of the last reply."""
        ids, after = self._replied(turns)
        return ids[: after[len(turns) - 1].start]

    def rendered(self, turns: Sequence[Turn], place: str) -> Tokens:
        """A conversation as one sample, however long it is: one whose last reply alone learns, or of `_as_sent`.

        Raises:
            UserError: the chat template refuses it.
        """
        said = self._taken(spoken(turns), place)
        ids, after = self._replied(said)
        learns, size = [False] * len(ids), 0
        for number, turn in enumerate(said):
            if turn.role == "assistant" and turn.learns and number in after:  # a template may leave one out
                begin, behind = len(self._prompt(said[:number])), after[number]
                end = next((at + 1 for at in behind if ids[at] in self._ends), behind.start)
                learns[begin:end] = [True] * (end - begin)
                size += len(turn.content.encode())
        return Tokens(ids, learns, size)

    def _replied(self, turns: Sequence[Turn]) -> tuple[list[int], dict[int, range]]:
        """As `_laid`: what the engines send for the last reply, that reply, and its end."""
        last = len(turns) - 1
        opened, answered = self._frame(turns[:last], opened=True), self._frame(turns)
        at = answered.index(last)
        before, opening = _text(answered[at - 1]), _text(opened[-1])
        # What the template writes before a reply beyond its prompt, the model has to say itself.
        beyond = before.removeprefix(opening) if before.startswith(opening) else ""
        ids, after = self._laid((*opened, beyond, last, *answered[at + 1 :]), turns)
        if not any(ids[at] in self._ends for at in after[last]):  # the template ends a reply by no token
            ids[after[last].start :] = [self._tokenizer.eos_token_id]
            after[last] = range(after[last].start, len(ids))
        return ids, after

    def _length(self, turns: Sequence[Turn], place: str) -> int:
        return len(self._replied(self._taken(turns, place))[0])

    def _taken(self, turns: Sequence[Turn], place: str) -> Sequence[Turn]:
        """A conversation as the chat template takes it: without the role of the system, where it refuses that."""
        for said in (turns, _without_system(turns)):
            try:
                self._frame(said)
            except Exception as error:  # a template refuses in whatever way its author chose
                reason = str(error).rstrip(".")
            else:
                return said
        raise UserError(f"{place}: the chat template of the base model refuses this conversation: {reason}.")

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        """What the engines send for the reply that comes next."""
        return self._laid(self._frame(turns, opened=True), turns)[0]

    def _frame(self, turns: Sequence[Turn], *, opened: bool = False) -> Frame:
        render = partial(_rendered, self._tokenizer, opened)
        return (self._opened if opened else self._answered).around(_messages(turns), render)

    def _laid(self, frame: Frame, turns: Sequence[Turn]) -> tuple[list[int], dict[int, range]]:
        """Ids of messages and what is around them, and by message the places after it up to the next."""
        ids: list[int] = []
        after: dict[int, range] = {}
        number = end = -1
        for part in frame:
            if isinstance(part, str):
                ids += self._ids(part, True)
            else:
                after[number] = range(end, len(ids))
                ids += self._ids(turns[part].content, False)
                number, end = part, len(ids)
        after[number] = range(end, len(ids))
        return ids, after

    def _tokenize(self, text: str, control: bool) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not control).input_ids
        return ids


def spoken(turns: Sequence[Turn]) -> Sequence[Turn]:
    """A conversation as the chat sends it (`chatbot.context`): from what the person said first to the last reply,
    neighbours of one role as one message; empty where nothing is answered."""
    system = [turn for turn in turns if turn.role == "system"]
    rest = list(dropwhile(lambda turn: turn.role != "user", (turn for turn in turns if turn.role != "system")))
    while rest and rest[-1].role == "user":
        rest.pop()
    merged = [_joined(list(some)) for _, some in groupby(rest, key=lambda turn: turn.role)]
    return (*system, *merged) if merged else ()


def _rendered(tokenizer: Any, opened: bool, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened))


def _messages(turns: Sequence[Turn]) -> list[ChatMessage]:
    return [ChatMessage(turn.role, turn.content) for turn in turns]


def _joined(turns: Sequence[Turn]) -> Turn:
    return Turn(turns[0].role, "\n\n".join(turn.content for turn in turns), all(turn.learns for turn in turns))


def _without_system(turns: Sequence[Turn]) -> Sequence[Turn]:
    rest = [turn for turn in turns if turn.role != "system"]
    said = without_system(_messages(turns))
    return [replace(turn, content=message.content) for turn, message in zip(rest, said, strict=True)]


def _text(part: str | int) -> str:
    return part if isinstance(part, str) else ""


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
    begins = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    known = tokenizer.get_vocab()
    if {"<|im_start|>", "<|im_end|>"} <= known.keys():
        template = CHATML
        tokenizer.eos_token = "<|im_end|>"
    else:
        template = TRANSCRIPT
    tokenizer.chat_template = "{{ bos_token }}" * begins + template
