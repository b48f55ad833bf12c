"""The process that makes pictures: `python -m chatbot.engines.aigc_server`, driven by `aigc`.

It reads its parameters as one JSON line, answers `styles` once it is loaded, then reads requests {id, prompt, count,
seed, style} or {id, stop} and answers notices, pictures and `done`. It ends when its stdin closes.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

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
    stopped: set[int] = set()
    threading.Thread(target=_listen, args=[requests, stopped], daemon=True).start()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from chatbot.aigc.imagine import Imagination

        imagination = Imagination(
            Path(parameters["model"]), Path(parameters["encoder"]), parameters["name"], threads=parameters["threads"]
        )
        imagination.warm_up()
    except ModelError as error:
        send({"error": str(error)})
        return
    send({"styles": imagination.styles})
    while True:
        request = requests.get()
        number = request["id"]
        try:
            plan = imagination.plan(request["prompt"], request["count"], request["seed"], request["style"])
            for notice in plan.notices:
                send({"id": number, "notice": notice})
            for picture in imagination.pictures(plan):
                if number in stopped:
                    break
                png = base64.b64encode(picture.png).decode()
                send({"id": number, "png": png, "seed": picture.seed, "style": picture.style})
            send({"id": number, "done": True})
        except ModelError as error:
            send({"id": number, "error": str(error)})
        except Exception as error:
            send({"id": number, "error": f"{parameters['name']} failed: {type(error).__name__}: {error}"})
        stopped.discard(number)


def _listen(requests: queue.SimpleQueue[dict[str, Any]], stopped: set[int]) -> None:
    for line in sys.stdin:
        said = json.loads(line)
        if said.get("stop"):
            stopped.add(said["id"])
        else:
            requests.put(said)
    os._exit(0)


if __name__ == "__main__":
    main()
