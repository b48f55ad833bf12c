"""Models that lie on the disk already: a GGUF file, or a folder of transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from chatbot.errors import ModelError
from chatbot.hub import context_of


def inspect_file(path: Path) -> tuple[dict[str, Any], str]:
    """Settings of a GGUF file (context length in tokens, whether it has a chat template), and its SHA-256.

    Raises:
        ModelError: it is not a whole one.
    """
    from gguf import GGUFReader

    try:
        fields: dict[str, Any] = GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()
        context_length = int(fields[f"{architecture}.context_length"].contents())
    except (ValueError, KeyError, IndexError, OSError) as error:
        if isinstance(error, OSError):
            raise ModelError(f"Cannot read {path}: {error.strerror}.") from None
        raise ModelError(f"{path} is not a whole GGUF model: it is cut short, damaged or something else.") from None
    settings = {
        "engine": "llamacpp",
        "file": path.name,
        "context_length": context_length,
        "chat_template": "tokenizer.chat_template" in fields,
    }
    with path.open("rb") as file:
        return settings, hashlib.file_digest(file, "sha256").hexdigest()


def inspect_folder(path: Path) -> tuple[dict[str, Any], str]:
    """Settings of a folder with config.json and safetensors, and the SHA-256 of the names and contents of its files.

    Raises:
        ModelError: it is not one.
    """
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.json"), *path.glob("*.jinja")])
    if not (path / "config.json").is_file() or not any(file.suffix == ".safetensors" for file in files):
        ggufs = sorted(file for file in path.glob("*") if file.suffix.lower() == ".gguf")
        hint = f" It holds GGUF files: name one, as {ggufs[0]}." if ggufs else ""
        raise ModelError(f"{path} is no model of transformers: it needs config.json and *.safetensors.{hint}")
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from None
    return {"engine": "hf", "context_length": context_of(path / "config.json")}, digest.hexdigest()
