"""How good a chat model is: bits per byte of held-out text, replies, instructions kept, repetition, speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.engines.hf_model import HfModel
from chatbot.gpt import checks
from chatbot.gpt.bits import Scores, score
from chatbot.gpt.corpus import Report, clean
from chatbot.gpt.reading import files, read
from chatbot.gpt.samples import Dialogue, Predicted, Preference, Text

Tell = Callable[[str, float | None], None]

_CONTEXT = 2048
_REPLY_TOKENS = 60


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be measured: its folder in transformers' form, and an adapter to be added to it."""

    name: str
    folder: Path
    adapter: Path | None = None


@dataclass(slots=True)
class Measured:
    """What was found of a model. `scores` by kind of text; `replies` to `checks.PROMPTS`."""

    name: str
    scores: dict[str, Scores] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    kept: int = 0
    refused: int = 0
    repetition: float = 0.0
    tokens_per_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """As they are printed and registered."""
        found: dict[str, Any] = {
            f"bits_per_byte_{kind}": scores.bits_per_byte().as_json()
            for kind, scores in self.scores.items()
            if scores.count
        }
        return found | {
            "instructions_kept": _share(self.kept, len(checks.CHECKS)),
            "harmful_refused": _share(self.refused, len(checks.HARMFUL)),
            "repetition": round(self.repetition, 4),
            "tokens_per_s": round(self.tokens_per_s, 2),
        }


def held_out(data: Sequence[Path], own: Sequence[Dialogue], most: int, tell: Tell) -> dict[str, list[Predicted]]:
    """What of some data is held out, by kind: `text`, `chats` and the person's `own`; of each `most` at most.

    They are those that no run has trained on as they stand.

    Raises:
        UserError: data that cannot be used.
    """
    tell("Reading what is held out", None)
    found: dict[str, list[Predicted]] = {}
    everything = itertools.chain(read(files(data)), own)
    for sample, is_held in clean(everything, Report()):
        if is_held and not isinstance(sample, Preference):  # a question of which reply, not of how likely one is
            kind = "text" if isinstance(sample, Text) else "own" if sample.ids else "chats"
            found.setdefault(kind, []).append(sample)
    return {kind: _spread(samples, most) for kind, samples in found.items()}


def measure(
    candidate: Candidate, samples: dict[str, list[Predicted]], *, system: str, precision: str, tell: Tell
) -> Measured:
    """Measure a model. Raises ModelError where it does not load."""
    tell(f"Loading {candidate.name}", None)
    model = HfModel(candidate.folder, candidate.name, context_length=_context(candidate), adapter=candidate.adapter)
    model.network.float()
    found = Measured(candidate.name)
    for kind, some in samples.items():
        found.scores[kind] = score(
            model.network,
            model.tokenizer,
            some,
            longest=min(_CONTEXT, model.context_length),
            system=system,
            precision=precision,
            tell=tell,
        )
    if precision == "bf16":
        model.network.bfloat16()
    speeds: list[float] = []
    instructions = [prompt for prompt, _ in checks.CHECKS]
    asked = [*checks.PROMPTS, *instructions, *checks.HARMFUL]
    replies = []
    for number, prompt in enumerate(asked):
        tell(f"{candidate.name} replies", number / len(asked))
        text, speed = _reply(model, prompt, system)
        replies.append(text)
        speeds += [speed] if speed else []
    found.replies = replies[: len(checks.PROMPTS)]
    found.kept = checks.passed(replies[len(checks.PROMPTS) :][: len(instructions)])
    found.refused = checks.refused(replies[-len(checks.HARMFUL) :])
    found.repetition = checks.repetition(replies)
    found.tokens_per_s = median(speeds) if speeds else 0.0
    return found


def _share(count: int, total: int) -> list[float]:
    """A share with its 95 % interval."""
    return [round(value, 4) for value in (count / total, *checks.wilson(count, total))]


def _reply(model: HfModel, prompt: str, system: str) -> tuple[str, float]:
    """The likeliest reply, and tokens a second; nothing where the context is too small for the question."""
    messages = [ChatMessage("system", system)] if system else []
    text, speed = "", 0.0
    messages.append(ChatMessage("user", prompt))
    if len(model.prompt(messages)) >= model.context_length:
        return text, speed
    for piece in model.reply(messages, GenerationOptions(max_tokens=_REPLY_TOKENS, temperature=0)):
        if isinstance(piece, Completion):
            speed = piece.decode_tokens_per_s
        else:
            text += piece
    return text.strip(), speed


def _context(candidate: Candidate) -> int:
    from chatbot.hub import context_of

    return context_of(candidate.folder / "config.json") or _CONTEXT


def _spread(samples: list[Predicted], most: int) -> list[Predicted]:
    count = len(samples)
    return samples if count <= most else [samples[place * count // most] for place in range(most)]
