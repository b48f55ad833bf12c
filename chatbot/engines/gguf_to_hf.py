"""A GGUF file as a transformers model: dequantised once, kept as safetensors."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from chatbot.errors import ModelError


def dequantized(file: Path, folder: Path) -> Path:
    """The folder with the model of the GGUF `file` as float32 safetensors; made where it is not there.

    It is written beside its place and moved there whole; processes that want it at the same time wait for each other.

    Raises:
        ModelError: transformers does not know the architecture, or the disk is full.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / ".lock"):
            if not folder.is_dir():
                for left in folder.parent.glob(".partial-*"):
                    shutil.rmtree(left, ignore_errors=True)
                part = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
                try:
                    _convert(file, part)
                    os.replace(part, folder)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
    except OSError as error:
        raise ModelError(f"Cannot convert {file} into {folder}: {error.strerror or error}.") from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"transformers cannot read {file}: {str(error).splitlines()[0]}") from error
    _restore_splits(file, tokenizer)
    # It says it is quantised, and would not be saved; its weights are plain numbers by now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _restore_splits(file: Path, tokenizer: Any) -> None:
    """Let digits stand alone where the file says so (SmolLM's way): transformers forgets that.

    Spaces before a digit would make other tokens than in llama.cpp, and than the model was trained on.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    fields: dict[str, Any] = GGUFReader(file).fields
    if "tokenizer.ggml.pre" in fields and fields["tokenizer.ggml.pre"].contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
