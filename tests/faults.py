"""Processes that talk without end, to be killed at any moment: `python -m tests.faults`.

For each line `SEED [CONVERSATION]` on stdin one is forked, which is quicker than starting one: `pid PID` says which,
and `ended` when it is no more. It says what is committed: `said ID TEXT` when a message is, and `kept ID LENGTH` when
so much of a reply is shown. Editing, asking again and going on are among what it does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from chatbot.events import Finished, Started
from tests.scripted import scripted_service

WORDS = " ".join(f"word{number}" for number in range(60))


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(seed: int, conversation: str | None) -> None:
    chance = random.Random(seed)
    async with scripted_service(lambda messages: WORDS, delay=0.0005, max_tokens=50) as service:
        for number in range(1_000_000):
            text = f"message {seed} {number}"
            turn = service.send(conversation, text)
            if conversation is not None and number:
                which = chance.randrange(4)
                if which == 1:
                    turn = service.regenerate(conversation)
                elif which == 2:
                    turn = service.edit(conversation, None, text)
                elif which == 3:
                    turn = service.resume(conversation)
            async for event in turn:
                if isinstance(event, Started):
                    conversation = event.conversation
                    said = await service.conversations.message(event.message)
                    say("said", said.id, said.text)
                elif isinstance(event, Finished):
                    say("kept", event.reply, len(event.text))


def serve() -> None:
    for line in sys.stdin:
        seed, *conversation = line.split()
        if pid := os.fork():
            say("pid", pid)
            os.waitpid(pid, 0)
            say("ended")
        else:
            asyncio.run(main(int(seed), conversation[0] if conversation else None))


if __name__ == "__main__":
    serve()
