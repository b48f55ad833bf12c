"""What admins of the bot can do beside everyone's commands: decide who may and how much, and see how it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.telegram.access import PLATFORM, Doorkeeper
from chatbot.errors import UserError
from chatbot.retrain.background import Background
from chatbot.store import Store
from storage.errors import StorageError
from storage.inbox import Inbox
from storage.versions import Kind

KINDS: tuple[Kind, ...] = ("gpt", "aigc")
QUOTAS = ("messages", "tokens", "pictures")


@dataclass(frozen=True, slots=True)
class AdminCommand:
    """As a `Command` of everyone's registry, for few."""

    argument: str
    help: str
    run: Callable[[Office, list[str], int], Awaitable[str]]
    """From the words after the command, and the number of the admin's chat, to the answer."""


class Office:
    """What admins look at and change.

    Args:
        door: keeps the rules.
        store: everyone who spoke with the bot, and the versions of the models.
        inbox: what waits.
        retraining: in a process of its own.
        bot: number of the account.
        polled: seconds of `time.monotonic` when Telegram last answered.
    """

    def __init__(
        self,
        door: Doorkeeper,
        store: Store,
        inbox: Inbox,
        retraining: Background,
        bot: int,
        polled: Callable[[], float],
    ) -> None:
        self.door = door
        self.store = store
        self.inbox = inbox
        self.retraining = retraining
        self.bot = bot
        self.polled = polled
        self.started = time.monotonic()

    async def answer(self, text: str, chat: int) -> str | None:
        """The answer to an admin's command in a chat; None where it is none."""
        name, *words = text.split() or [""]
        command = ADMIN_COMMANDS.get(name.removeprefix("/"))
        if not name.startswith("/") or command is None:
            return None
        try:
            return await command.run(self, words, chat)
        except (UserError, StorageError) as error:
            return str(error)


async def _users(office: Office, words: list[str], chat: int) -> str:
    rules = {rule.external_id: rule for rule in await office.door.rules.rules()}
    names = {person.external_id: person.name for person in await office.store.people.of(PLATFORM)}
    lines = []
    for number in sorted({*rules, *names}):
        used = await office.door.used(number)
        allowed = rules[number].allowed if number in rules else None
        said = {True: "allowed", False: "denied", None: "as set"}[allowed]
        lines.append(
            f"{number}  {names.get(number) or '?'}: {said}; today {used.messages} messages, {used.tokens} tokens, "
            f"{used.pictures} pictures"
        )
    return "\n".join(lines) or "Nobody has spoken with the bot yet."


async def _allow(office: Office, words: list[str], chat: int) -> str:
    return await _decide(office, words, True)


async def _deny(office: Office, words: list[str], chat: int) -> str:
    return await _decide(office, words, False)


async def _decide(office: Office, words: list[str], allowed: bool) -> str:
    if len(words) != 1 or not _is_number(words[0]):
        return "Say whose number it is about: a person's, or a group's."
    await office.door.rules.decide(words[0], allowed=allowed)
    return f"{words[0]} may talk to the bot." if allowed else f"{words[0]} may not talk to the bot."


async def _quota(office: Office, words: list[str], chat: int) -> str:
    if len(words) != 3 or not _is_number(words[0]) or words[1] not in QUOTAS or not words[2].isdecimal():
        return "It is /quota NUMBER messages|tokens|pictures COUNT, a day; 0 sets no end."
    await office.door.rules.decide(words[0], **{words[1]: min(int(words[2]), 2**31 - 1)})
    return f"{words[0]} may use {words[2]} {words[1]} a day."


async def _health(office: Office, words: list[str], chat: int) -> str:
    count, since = await office.inbox.waiting()
    now = time.monotonic()
    waits = f"{count} updates wait"
    waits += f", the oldest for {(datetime.now(UTC) - since).total_seconds():.0f} s." if since else "."
    answered = "Telegram has not answered yet."
    if asked := office.polled():
        answered = f"Telegram answered {now - asked:.0f} s ago."
    return f"Up for {now - office.started:.0f} s.\n{waits}\n{answered}"


async def _models(office: Office, words: list[str], chat: int) -> str:
    listed = [row for kind in KINDS for row in await office.store.registry.list(kind)]
    return "\n".join(f"{row.version.kind}  {row.version.ref}: {row.state}" for row in listed)


async def _promote(office: Office, words: list[str], chat: int) -> str:
    if len(words) != 1:
        return "Say which version is to answer: /promote NAME@VERSION."
    version = await office.store.registry.promote(words[0])
    return f"{version.ref} answers from the next message on."


async def _roll_back(office: Office, words: list[str], chat: int) -> str:
    kind = next((one for one in KINDS if words == [one]), "gpt" if not words else None)
    if kind is None:
        return "It is /rollback gpt, or /rollback aigc."
    version = await office.store.registry.rollback(kind)
    return f"{version.ref} answers again."


async def _retrain(office: Office, words: list[str], chat: int) -> str:
    if words and (words[0] != "gpt" or len(words) > 2):
        return "It is /retrain gpt, with a date where only what was said since then is to be learned: 2026-01-31."
    if await asyncio.to_thread(office.retraining.at_work):
        return f"A retraining is at work. {office.retraining.progress()}"
    if not words:  # to ask is no wish: after a crash it may be asked once more
        return "No retraining is at work; /retrain gpt begins one."
    since = ["--since", words[1]] if len(words) > 1 else []
    await asyncio.to_thread(office.retraining.start, ["gpt", *since], f"{office.bot}:{chat}")
    return "The retraining has begun. /retrain says how far it is; its end will be told here."


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdecimal() and len(word) < 20


ADMIN_COMMANDS: dict[str, AdminCommand] = {
    "users": AdminCommand("", "show who talks to the bot, and what they used today", _users),
    "allow": AdminCommand("NUMBER", "let a person or a group talk to the bot", _allow),
    "deny": AdminCommand("NUMBER", "let a person or a group not talk to the bot", _deny),
    "quota": AdminCommand("NUMBER WHAT COUNT", "set how much may be used a day", _quota),
    "models": AdminCommand("", "show the versions of the models", _models),
    "promote": AdminCommand("NAME@VERSION", "let a trained version answer", _promote),
    "rollback": AdminCommand("KIND", "let the version before answer again", _roll_back),
    "retrain": AdminCommand("gpt [SINCE]", "retrain the chat model, or see how far that is", _retrain),
    "health": AdminCommand("", "show how the bot is", _health),
}
