"""A byte-level BPE tokenizer of transformers, as the tags of a GGUF file."""

from __future__ import annotations

import json
from typing import Any

import gguf

from chatbot.errors import UserError

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""How text is cut before it is encoded, by llama.cpp's names: it knows a list of them, and runs no others."""


def write(writer: Any, tokenizer: Any, rows: int) -> None:
    """Write a tokenizer; `rows` is the number of tokens that the model has embeddings for.

    Raises:
        UserError: llama.cpp would make other tokens of a text.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise UserError(f"A tokenizer of the kind {model['type']} cannot be exported; byte-level BPE can.")
    if content.get("normalizer") not in (None, {"type": "Sequence", "normalizers": []}):
        raise UserError("The tokenizer changes text before it encodes it, which llama.cpp does not do.")
    tokens = [f"[UNUSED{number}]" for number in range(rows)]
    kinds = [gguf.TokenType.UNUSED] * rows
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
    for added in content.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(content.get("pre_tokenizer")))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(bool(tokenizer("").input_ids))
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def pre_tokenizer(content: Any) -> str:
    """llama.cpp's name for how a tokenizer cuts text. Raises UserError where it has none."""
    steps = content["pretokenizers"] if content and content["type"] == "Sequence" else [content]
    if len(steps) == 1 and _is(steps[0], _BYTES):
        return "gpt-2"
    if len(steps) == 2 and _is(steps[0], _DIGITS) and _is(steps[1], _BYTES):
        return "smollm"
    if len(steps) == 2 and _is(steps[0], {"type": "Split"}) and _is(steps[1], _BYTES | {"use_regex": False}):
        pattern = steps[0]["pattern"].get("Regex", "")
        if pattern in _SPLITS:
            return _SPLITS[pattern]
    raise UserError("llama.cpp does not cut text as this tokenizer does; the model can run in the engine hf alone.")


def _is(step: Any, wanted: dict[str, Any]) -> bool:
    return isinstance(step, dict) and wanted.items() <= step.items()
