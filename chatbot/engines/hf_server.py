"""The process that runs transformers: `python -m chatbot.engines.hf_server`, driven by `hf`.

It reads its parameters as one JSON line from stdin, then requests {id, do, ...}, and writes JSON lines: notices
while it loads, `ready`, then {id, ...} answers. Replies under way take turns, token by token. It ends when its
stdin closes.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from chatbot.engines.base import ChatMessage, Completion, GenerationOptions
from chatbot.errors import ModelError


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our stdin
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not ours to send

    def send(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    parameters = json.loads(sys.stdin.readline())
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[sys.stdin, requests], daemon=True).start()
    try:
        model = _load(parameters, send)
    except ModelError as error:
        send({"error": str(error)})
        return
    send({"ready": True})
    _Server(model, requests, send).run()


def _listen(stdin: TextIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in stdin:
        requests.put(json.loads(line))
    os._exit(0)  # replies under way are not worth waiting for


def _load(parameters: dict[str, Any], send: Any) -> Any:
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is on the disk; nothing is asked of the network
    from chatbot.engines.gguf_to_hf import dequantized
    from chatbot.engines.hf_model import HfModel

    folder = Path(parameters["path"])
    if folder.suffix.lower() == ".gguf":
        target = Path(parameters["converted"])
        if not target.is_dir():
            send({"notice": f"Converting {parameters['name']} for transformers, once"})
        folder = dequantized(folder, target)
    return HfModel(
        folder,
        parameters["name"],
        context_length=parameters["context"],
        memories=parameters["slots"],
        threads=parameters["threads"],
        device=parameters["device"],
        trust_remote_code=parameters["trust_remote_code"],
        batching=parameters["batching"],
        adapter=None if parameters["adapter"] is None else Path(parameters["adapter"]),
    )


class _Server:
    """Gives every reply under way one token in turn, and looks for requests between the rounds."""

    def __init__(self, model: Any, requests: queue.SimpleQueue[dict[str, Any]], send: Any) -> None:
        self._model = model
        self._requests = requests
        self._send = send
        self._replies: dict[int, Generator[str | Completion]] = {}

    def run(self) -> None:
        while True:
            while not self._requests.empty() or not self._replies:
                self._take(self._requests.get())
            for number in list(self._replies):
                self._step(number)

    def _take(self, request: dict[str, Any]) -> None:
        number = request["id"]
        if request["do"] == "stop":
            stopped = self._replies.pop(number, None)
            if stopped is not None:
                stopped.close()
            return
        messages = [ChatMessage(**message) for message in request["messages"]]
        try:
            if request["do"] == "count":
                self._send({"id": number, "tokens": len(self._model.prompt(messages))})
            else:
                options = GenerationOptions(**request["options"] | {"stop": tuple(request["options"]["stop"])})
                self._replies[number] = self._model.reply(messages, options)
        except Exception as error:
            self._fail(number, error)

    def _step(self, number: int) -> None:
        try:
            piece = next(self._replies[number])
        except Exception as error:
            self._replies.pop(number).close()
            self._fail(number, error)
            return
        if isinstance(piece, Completion):
            self._replies.pop(number).close()
            self._send({"id": number, "completion": asdict(piece)})
        elif piece:
            self._send({"id": number, "piece": piece})

    def _fail(self, number: int, error: Exception) -> None:
        if isinstance(error, ModelError):
            reason = str(error)
        elif "out of memory" in str(error).lower():
            reason = f"{self._model.name} has too little memory for this; shorten the conversation or --max-tokens."
        else:
            reason = f"{self._model.name} failed: {type(error).__name__}: {error}"
        self._send({"id": number, "error": reason})


if __name__ == "__main__":
    main()
