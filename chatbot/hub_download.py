"""The process that downloads from the hub: `python -m chatbot.hub_download`, driven by `hub`; it can be killed.

Reads one JSON object from stdin; what went wrong is said in one sentence on stdout.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from chatbot.errors import ModelError
from chatbot.hub import said_to_a_person


def main() -> int:
    request = json.load(sys.stdin)
    folder, repo = Path(request["folder"]), request["repo"]
    try:
        for name, known in request["files"].items():
            _download(repo, name, request["revision"], folder, known)
    except ModelError as error:
        print(error)
        return 2
    return 0


def _download(repo: str, name: str, revision: str, folder: Path, known: dict[str, Any]) -> None:
    from huggingface_hub import hf_hub_download

    path = folder / name
    if path.is_file() and path.stat().st_size == known["size"]:
        return
    with said_to_a_person(repo):
        path = Path(hf_hub_download(repo, name, revision=revision, local_dir=folder))
    if known["sha256"]:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known["sha256"]:
                path.unlink()
                raise ModelError(f"{name} is not what the hub promised (its SHA-256 differs); try again.")


if __name__ == "__main__":
    sys.exit(main())
