"""Takes out what guards the bot, one thing at a time, and sees its test fail: `python -m tests.telegram.safeguards`.

Works on a copy, some ten minutes long: what is lost is waited for. A line whose test passes without it guards
nothing, or nothing that is tested. That an update is stored once, the database guards too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240


@dataclass(frozen=True, slots=True)
class Safeguard:
    """`text` of `file` guards `what`; without it, `instead`, the tests named `tests` must fail."""

    what: str
    file: str
    text: str
    instead: str
    tests: str


SAFEGUARDS = (
    Safeguard(
        "updates are stored before they are confirmed",
        "adapters/telegram/polling.py",
        "await self._store(updates)",
        "asyncio.get_running_loop().call_later(0.3, lambda found=updates: asyncio.ensure_future(self._store(found)))",
        "tests/telegram/test_kills.py",
    ),
    Safeguard(
        "what is done stays known",
        "storage/inbox.py",
        '.values(state="done", shown_id=None, **_EMPTY)',
        '.values(state="done", shown_id=None, update_id=-inbox.c.seq, **_EMPTY)',
        "tests/telegram/test_faults.py::test_what_was_answered_and_is_sent_once_more_is_not_answered_again",
    ),
    Safeguard(
        "what a process that died left is taken over",
        "adapters/telegram/bot.py",
        "                self._lanes.add(entries)\n                for lane",
        "                for lane",
        "tests/telegram/test_kills.py",
    ),
    Safeguard(
        "that a message is being sent is noted before",
        "adapters/telegram/room.py",
        'so_far = {"state": "sending", ',
        'so_far = {"state": "waiting", ',
        "tests/telegram/test_kills.py",
    ),
    Safeguard(
        "a chat is answered in order",
        "adapters/telegram/lanes.py",
        "insort(waiting, entry, key=lambda one: one.update_id)",
        "waiting.insert(0, entry)",
        "tests/telegram/test_faults.py::test_updates_that_come_twice_and_in_disorder_are_answered_once_and_in_order",
    ),
    Safeguard(
        "chats are answered side by side",
        "adapters/telegram/updates.py",
        'return f"{self.id}/{self.topic}" if self.topic else str(self.id)',
        'return "1"',
        "tests/telegram/test_faults.py::test_a_chat_is_answered_in_order_and_no_chat_waits_for_another",
    ),
    Safeguard(
        "a chat that is asked for patience waits alone",
        "adapters/telegram/pacing.py",
        "self._held[chat] = time.monotonic() + seconds",
        "self._all.due = time.monotonic() + seconds + 1.0",
        "tests/telegram/test_faults.py::test_a_chat_that_is_asked_for_patience_waits_alone",
    ),
    Safeguard(
        "what may have arrived is not sent again",
        "adapters/telegram/sending.py",
        "if not (repeatable or never_left(error)):",
        "if False:",
        "tests/telegram/test_faults.py::test_what_may_have_arrived_is_not_sent_again_and_can_be_shown",
    ),
    Safeguard(
        "what never left is sent again",
        "adapters/telegram/sending.py",
        "if not (repeatable or never_left(error)):",
        "if not repeatable:",
        "tests/telegram/test_faults.py::test_it_starts_while_telegram_is_down_and_sends_when_it_is_back",
    ),
    Safeguard(
        "what is beyond the pending is turned away",
        "storage/inbox.py",
        "full = _together(lane, waiting) >= self._most",
        "full = False",
        "tests/telegram/test_faults.py::test_what_is_beyond_the_pending_is_turned_away_once_and_politely",
    ),
    Safeguard(
        "/stop passes what waits",
        "adapters/base.py",
        'return command_of(text) is COMMANDS["stop"]',
        "return False",
        "tests/telegram/test_talk.py::test_stop_passes_what_waits_and_keeps_what_came",
    ),
    Safeguard(
        "who may is asked of presses and edits too",
        "adapters/telegram/answering.py",
        "if refused is not None:",
        'if refused is not None and update.act == "said":',
        "tests/telegram/test_access.py::test_who_may_not_is_told_so_whatever_they_do",
    ),
    Safeguard(
        "an answer that is out is not given again where noting that fails",
        "adapters/telegram/bot.py",
        "if update is not None and not answered:\n                    cost",
        "if update is not None:\n                    cost",
        "tests/telegram/test_faults.py::test_an_answer_that_is_out_comes_once_though_noting_that_fails",
    ),
    Safeguard(
        "the token stands in no log",
        "chatbot/trace.py",
        'text = text.replace(secret, "***")',
        "pass",
        "tests/telegram/test_access.py::test_the_token_reaches_no_log_and_no_error",
    ),
    Safeguard(
        "replies may end when the bot is told to",
        "adapters/telegram/bot.py",
        "GRACE_S = 10.0",
        "GRACE_S = 0.0",
        "tests/telegram/test_faults.py::test_sigterm_lets_replies_end_and_what_takes_longer_is_gone_on_with",
    ),
)


def fails_without(safeguard: Safeguard, copy: Path) -> bool:
    """Whether the tests of a safeguard fail, or do not end, where it is taken out."""
    file = copy / safeguard.file
    whole = file.read_text(encoding="utf-8")
    if whole.count(safeguard.text) != 1:
        raise SystemExit(f"{safeguard.file} has no longer once: {safeguard.text}")
    file.write_text(whole.replace(safeguard.text, safeguard.instead), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", safeguard.tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        return done.returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        file.write_text(whole, encoding="utf-8")


def main() -> int:
    held = True
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".bench", "__pycache__", ".*_cache")
        )
        kills = copy / "tests" / "telegram" / "test_kills.py"
        kills.write_text(kills.read_text(encoding="utf-8").replace("ROUNDS = 15", "ROUNDS = 2"), encoding="utf-8")
        for safeguard in SAFEGUARDS:
            failed = fails_without(safeguard, copy)
            held = held and failed
            print(f"{'fails without' if failed else 'PASSES WITHOUT'}: {safeguard.what}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
