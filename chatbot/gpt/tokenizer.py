"""Tokenizers: byte-level BPE of one's own, in the form that llama.cpp knows too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chatbot.errors import UserError

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def train(texts: Iterable[str], vocabulary: int, longest: int) -> Any:
    """A tokenizer of transformers with `vocabulary` tokens at most, learned from `texts`.

    Digits stand alone and words begin with their space, as in SmolLM2 (llama.cpp's "smollm").
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + len(CONTROL):
        raise UserError(f"--vocabulary {vocabulary} is too small; {len(alphabet) + len(CONTROL)} is the least.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(CONTROL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped there
        tokenizer_object=tokenizer,
        eos_token=CONTROL[0],
        bos_token=CONTROL[0],
        pad_token=CONTROL[0],
        additional_special_tokens=list(CONTROL[1:]),
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


def load(folder: Path) -> Any:
    """The tokenizer in a folder. Raises UserError where there is none that can be used."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"There is no tokenizer in {folder}: {str(error).splitlines()[0]}") from None
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(f"The tokenizer in {folder} cannot be used: it has no tokenizer.json.")
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer in {folder} cannot be used: it has no token that ends a text.")
    return tokenizer
