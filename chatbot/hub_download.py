"""The process that downloads from the hub: `python -m chatbot.hub_download`, driven by `hub`.

It reads one JSON line from stdin and writes one: `done`, or an `error` in a sentence. It ends when its stdin closes.
What it has of a file stays beside its place, and the next download goes on from there: `hf_hub_download` itself
begins anew since huggingface_hub 2.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock

from chatbot.errors import ModelError
from chatbot.hub import said_to_a_person


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our stdin
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    folder = Path(request["folder"])
    try:
        with FileLock(folder.with_name(f"{folder.name}.lock")), said_to_a_person(request["repo"]):
            for name, known in request["files"].items():
                _download(request["repo"], name, request["revision"], folder / name, known)
        print(json.dumps({"done": True}), flush=True)
    except ModelError as error:
        print(json.dumps({"error": str(error)}), flush=True)


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _download(repo: str, name: str, revision: str, place: Path, known: dict[str, Any]) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is there, and not exported

    if place.is_file() and place.stat().st_size == known["size"]:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.partial")
    if part.is_file() and part.stat().st_size > known["size"]:  # of nothing that we know
        part.unlink()
    with part.open("ab") as file:
        http_get(
            hf_hub_url(repo, name, revision=revision),
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=known["size"],
            displayed_filename=name,
        )
        file.flush()
        os.fsync(file.fileno())
    if known["sha256"]:
        with part.open("rb") as written:
            if hashlib.file_digest(written, "sha256").hexdigest() != known["sha256"]:
                part.unlink()
                raise ModelError(f"{name} is not what the hub promised (its SHA-256 differs); try again.")
    os.replace(part, place)


if __name__ == "__main__":
    main()
