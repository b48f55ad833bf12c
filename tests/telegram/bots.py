"""Bots to be killed: `python -m tests.telegram.bots` forks `chatbot telegram`, quicker than starting it anew.

For each line on stdin, a JSON object of environment variables with `LOG`, the file of its log, one is forked:
`pid PID` says which, and `ended PID STATUS` when it is no more. All libraries are loaded once, before.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings

import alembic.command

import adapters.telegram.bot
import chatbot.engines.fake
from chatbot.cli import main

LOADED = (adapters.telegram.bot, alembic.command, chatbot.engines.fake)


def serve() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which only wait for children
    lock = threading.Lock()

    def say(*words: object) -> None:
        with lock:
            print(*words, flush=True)

    def wait(pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        say("ended", pid, status)

    for line in sys.stdin:
        values: dict[str, str] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ.update(values)
            log = os.open(values["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = main(["telegram", "--model", "fake", "--log", values.get("LEVEL", "info")])
            os._exit(code)
        say("pid", pid)
        threading.Thread(target=wait, args=(pid,), daemon=True).start()


if __name__ == "__main__":
    serve()
