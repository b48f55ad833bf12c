"""From files and conversations to rows of token ids, once, at the beginning of a run."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.engines.prompt import end_of_turn
from chatbot.errors import UserError
from chatbot.gpt import reading, rows, tokenizer
from chatbot.gpt.chat_tokens import Encoder, use_template
from chatbot.gpt.corpus import Report, clean
from chatbot.gpt.options import Options
from chatbot.gpt.prefer import Preferences, encoded
from chatbot.gpt.prefer import write as write_preferences
from chatbot.gpt.preferences import balanced
from chatbot.gpt.samples import Dialogue, Preference, Sample, Text
from chatbot.training.checkpoint import whole

Tell = Callable[[str, float | None], None]

TOKENIZER = "tokenizer"
_REPORT = "report.json"
_TOKENIZER_TEXT = 100_000_000
"""Characters that a tokenizer is trained on, at most: more of the same changes nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run learns from, and what is held out for measuring. `folder` holds the tokenizer too."""

    folder: Path
    train: rows.Rows | Preferences
    held: rows.Rows | Preferences
    report: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all token ids and of which are learned."""
        return rows.fingerprint(split.meta["sha256"] for split in (self.train, self.held))

    @property
    def tokens_a_row(self) -> float:
        """Tokens of what is learned at once, on the average: a row as far as it is filled, a preference's replies."""
        tokens = self.train.tokens if isinstance(self.train, rows.Rows) else int(self.train.meta["tokens"])
        return tokens / len(self.train)

    def tokenizer(self) -> Any:
        return tokenizer.load(self.folder / TOKENIZER)

    def unpack(self) -> None:
        """Give each text and conversation rows of its own."""
        for split in (self.train, self.held):
            if isinstance(split, rows.Rows):
                split.unpack()


def load(folder: Path, options: Options) -> Prepared:
    """What `prepare` left in a folder."""
    report = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    train, held = (_split(folder / name, options) for name in ("train", "held"))
    return Prepared(folder, train, held, report)


def _split(folder: Path, options: Options) -> rows.Rows | Preferences:
    return (Preferences if options.stage == "prefer" else rows.Rows)(folder, options.block)


def prepare(
    options: Options,
    folder: Path,
    own: Sequence[Sample],
    report: Report,
    tell: Tell,
    complain: Callable[[str], None],
) -> Prepared:
    """Read, clean, split, encode and write everything; the folder is there whole or not at all.

    Args:
        own: what is learned of the conversations of the database.
        report: told what became of what was read.

    Raises:
        UserError: data that cannot be used, with its file and line, or too little of it.
    """
    paths = reading.files(Path(path) for path in options.data)
    samples = clean(_watched(itertools.chain(reading.read(paths), own), tell), report)
    with whole(folder) as part:
        if options.stage == "pretrain":
            _pretraining(options, samples, part, tell)
        elif options.stage == "prefer":
            _preferring(options, samples, part, report)
        else:
            parts = _finetuning(options, samples, part)
            if parts:
                complain(
                    f"{parts:,} conversations are longer than {options.block:,} tokens; they are cut into parts."
                )
        (part / _REPORT).write_text(json.dumps(report.as_json()), encoding="utf-8")
        if not len(_split(part / "train", options)):
            raise UserError(f"There is nothing to learn from. {' '.join(report.lines())}")
        if report.learned + report.held_out < 2:
            raise UserError("There is only one text or conversation to learn from; training needs more.")
    for line in report.lines():
        complain(line)
    prepared = load(folder, options)
    if not len(prepared.held):
        complain("Nothing is held out, since there is so little: whether the model gets better will not be known.")
    return prepared


def _watched(samples: Iterable[Sample], tell: Tell) -> Iterator[Sample]:
    for count, sample in enumerate(samples):
        if count % 500 == 0:
            tell(f"Reading what there is to learn from: {count:,}", None)
        yield sample


def _pretraining(options: Options, samples: Iterable[tuple[Sample, bool]], folder: Path, tell: Tell) -> None:
    kept = folder / "texts"
    with kept.open("w", encoding="utf-8") as file:
        for sample, held_out in samples:
            if not isinstance(sample, Text):
                raise UserError(
                    f"{sample.place}: it is a conversation; `chatbot train gpt finetune` learns from those."
                )
            file.write(json.dumps([sample.text, sample.place, held_out]) + "\n")

    def again() -> Iterator[tuple[Text, bool]]:
        with kept.open(encoding="utf-8") as file:
            for line in file:
                text, place, held_out = json.loads(line)
                yield Text(text, place), held_out

    if options.tokenizer:
        known = tokenizer.load(Path(options.tokenizer))
    else:
        tell("Training the tokenizer", None)
        known = tokenizer.train(_some(again()), options.vocabulary, options.block)
    known.save_pretrained(folder / TOKENIZER)
    encoder = Encoder(known, {known.eos_token_id}, options.block)
    with rows.Writer(folder / "train", len(known)) as train, rows.Writer(folder / "held", len(known)) as held:
        for count, (sample, held_out) in enumerate(again()):
            if count % 500 == 0:
                tell(f"Encoding: {count:,} texts", None)
            (held if held_out else train).add(encoder.text(sample))
    kept.unlink()


def _some(samples: Iterable[tuple[Text, bool]]) -> Iterator[str]:
    """What the tokenizer is trained on: nothing that is held out."""
    length = 0
    for sample, held_out in samples:
        if not held_out:
            length += len(sample.text)
            yield sample.text
        if length > _TOKENIZER_TEXT:
            return


def _finetuning(options: Options, samples: Iterable[tuple[Sample, bool]], folder: Path) -> int:
    """Returns how many conversations had to be cut into parts."""
    known, encoder = _of_base(options)
    known.save_pretrained(folder / TOKENIZER)
    with rows.Writer(folder / "train", len(known)) as train, rows.Writer(folder / "held", len(known)) as held:
        for sample, held_out in samples:
            split = held if held_out else train
            check_learnable(sample)
            if isinstance(sample, Text):
                split.add(encoder.text(sample))
            elif isinstance(sample, Dialogue):
                for tokens in encoder.dialogue(sample.with_system(options.system)):
                    split.add(tokens)
    return encoder.parts


def check_learnable(sample: Sample) -> None:
    """Raises UserError where fine-tuning can learn nothing of a sample."""
    if isinstance(sample, Preference):
        raise UserError(f"{sample.place}: it says which reply is better; `chatbot train gpt prefer` learns that.")


def count_preferences(options: Options, found: Sequence[Preference]) -> int:
    """How many of some preferences would be learned."""
    _, encoder = _of_base(options)
    kept = [one for one, held_out in clean(found, Report()) if isinstance(one, Preference) and not held_out]
    fitting, _ = encoded((one.with_system(options.system) for one in kept), encoder, options.block)
    return len(balanced(fitting, Counter()))


def _preferring(options: Options, samples: Iterable[tuple[Sample, bool]], folder: Path, report: Report) -> None:
    known, encoder = _of_base(options)
    known.save_pretrained(folder / TOKENIZER)
    splits: dict[bool, list[Preference]] = {False: [], True: []}
    for sample, held_out in samples:
        if not isinstance(sample, Preference):
            raise UserError(
                f"{sample.place}: it does not say which reply is better (chosen and rejected, or a label); `chatbot "
                "train gpt finetune` learns from it."
            )
        splits[held_out].append(sample.with_system(options.system))
    for name, found in (("train", splits[False]), ("held", splits[True])):
        fitting, too_long = encoded(found, encoder, options.block)
        if too_long:
            report.left_out["longer than a row"] += too_long
        learned = balanced(fitting, report.left_out) if name == "train" else fitting
        write_preferences(folder / name, learned, len(known))
    report.learned, report.held_out = (len(_split(folder / name, options)) for name in ("train", "held"))


def _of_base(options: Options) -> tuple[Any, Encoder]:
    """The tokenizer of the base, and what encodes samples for it."""
    folder = Path(options.base_folder)
    known = tokenizer.load(folder)
    use_template(known)
    return known, Encoder(known, ends_of(known, _configured_end(folder)), options.block)


def _configured_end(folder: Path) -> int | list[int] | None:
    """What ends a reply of the model in a folder, as transformers reads it."""
    for name in ("generation_config.json", "config.json"):
        with suppress(OSError, ValueError):
            end: int | list[int] | None = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            return end
    return None


def ends_of(known: Any, configured: int | list[int] | None = None) -> set[int]:
    """Ids of the tokens that end a reply: by the tokenizer, by its chat template, by the base (`configured`)."""
    vocabulary = known.get_vocab()
    ends = {vocabulary.get(name) for name in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")}
    ends |= {known.eos_token_id, end_of_turn(known)}
    ends |= set(configured if isinstance(configured, list) else [configured])
    return {end for end in ends if end is not None}
