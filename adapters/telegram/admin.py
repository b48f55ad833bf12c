"""What admins of the bot can do beside everyone's commands: decide who may and how much, and see how it goes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.telegram.access import PLATFORM, Doorkeeper
from storage.inbox import Inbox
from storage.people import People

QUOTAS = ("messages", "tokens", "pictures")


@dataclass(frozen=True, slots=True)
class AdminCommand:
    """As a `Command` of everyone's registry, for few."""

    argument: str
    help: str
    run: Callable[[Office, list[str]], Awaitable[str]]


class Office:
    """What admins look at and change.

    Args:
        door: keeps the rules.
        people: everyone who spoke with the bot.
        inbox: what waits.
        polled: seconds of `time.monotonic` when Telegram last answered.
    """

    def __init__(self, door: Doorkeeper, people: People, inbox: Inbox, polled: Callable[[], float]) -> None:
        self.door = door
        self.people = people
        self.inbox = inbox
        self.polled = polled
        self.started = time.monotonic()

    async def answer(self, text: str) -> str | None:
        """The answer to an admin's command; None where it is none."""
        name, *words = text.split()
        command = ADMIN_COMMANDS.get(name.removeprefix("/"))
        if not name.startswith("/") or command is None:
            return None
        return await command.run(self, words)


async def _users(office: Office, words: list[str]) -> str:
    rules = {rule.external_id: rule for rule in await office.door.rules.rules()}
    names = {person.external_id: person.name for person in await office.people.of(PLATFORM)}
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


async def _allow(office: Office, words: list[str]) -> str:
    return await _decide(office, words, True)


async def _deny(office: Office, words: list[str]) -> str:
    return await _decide(office, words, False)


async def _decide(office: Office, words: list[str], allowed: bool) -> str:
    if len(words) != 1 or not _is_number(words[0]):
        return "Say whose number it is about: a person's, or a group's."
    await office.door.rules.decide(words[0], allowed=allowed)
    return f"{words[0]} may talk to the bot." if allowed else f"{words[0]} may not talk to the bot."


async def _quota(office: Office, words: list[str]) -> str:
    if len(words) != 3 or not _is_number(words[0]) or words[1] not in QUOTAS or not words[2].isdecimal():
        return "It is /quota NUMBER messages|tokens|pictures COUNT, a day; 0 sets no end."
    await office.door.rules.decide(words[0], **{words[1]: min(int(words[2]), 2**31 - 1)})
    return f"{words[0]} may use {words[2]} {words[1]} a day."


async def _health(office: Office, words: list[str]) -> str:
    count, since = await office.inbox.waiting()
    now = time.monotonic()
    oldest = f", the oldest for {(datetime.now(UTC) - since).total_seconds():.0f} s" if since else ""
    asked = f"{now - office.polled():.0f} s ago" if office.polled() else "not yet"
    return f"Up for {now - office.started:.0f} s. {count} updates wait{oldest}. Telegram last answered {asked}."


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdecimal() and len(word) < 20


ADMIN_COMMANDS: dict[str, AdminCommand] = {
    "users": AdminCommand("", "show who talks to the bot, and what they used today", _users),
    "allow": AdminCommand("NUMBER", "let a person or a group talk to the bot", _allow),
    "deny": AdminCommand("NUMBER", "let a person or a group not talk to the bot", _deny),
    "quota": AdminCommand("NUMBER WHAT COUNT", "set how much may be used a day", _quota),
    "health": AdminCommand("", "show how the bot is", _health),
}
