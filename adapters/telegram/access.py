"""Who may talk to the bot, and how much a day: asked for every update, whatever it is."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, date, datetime

from adapters.base import Cost, routed
from adapters.telegram.updates import Update
from chatbot.router import ToCommand, ToPictures
from chatbot.settings import Settings
from storage.access import Access, Rule, Used
from storage.database import Database

PLATFORM = "telegram"
EVERYONE = "*"
GENERATING = ("retry", "edit", "continue", "imagine")
"""Commands that a model answers."""

NOT_ALLOWED = "You may not talk to this bot; ask whoever runs it. Your number here is {}."
USED_UP = "That was all for today: {} {} a day. It begins anew at midnight, UTC."


class Doorkeeper:
    """Knows the settings, and what the admins decided since.

    Args:
        database: keeps that, and what was used.
        settings: say the rest.
        secret: makes pseudonyms of people: what they used is counted even where they are forgotten.
    """

    def __init__(self, database: Database, settings: Settings, secret: str) -> None:
        self.rules = Access(database, PLATFORM)
        self._settings = settings
        self._secret = secret.encode()

    def is_admin(self, sender: int) -> bool:
        return str(sender) in self._settings.telegram_admins

    async def refusal(self, update: Update) -> str | None:
        """Why an update is not answered, in a sentence; None where it is."""
        person, group = str(update.sender), str(update.chat.id)
        if self.is_admin(update.sender):
            return None
        theirs = await self.rules.rule(person)
        places = {person: theirs}
        if not update.chat.private:
            places[group] = await self.rules.rule(group)
        if theirs.allowed is False or not any(self._allowed(rule) for rule in places.values()):
            return NOT_ALLOWED.format(person)
        limited = [rule for rule in places.values() if self.limits(rule) != Used()]
        if not limited or not _generates(update):
            return None
        for rule in limited:
            used = await self.rules.used(self._account(rule.external_id), today())
            if told := self._used_up(rule, used, update):
                return told
        return None

    def _allowed(self, rule: Rule) -> bool:
        if rule.allowed is not None:
            return rule.allowed
        return EVERYONE in self._settings.telegram_allow or rule.external_id in self._settings.telegram_allow

    def limits(self, rule: Rule) -> Used:
        """What may be used a day; 0: no end."""
        settings = self._settings
        return Used(
            settings.telegram_messages if rule.messages is None else rule.messages,
            settings.telegram_tokens if rule.tokens is None else rule.tokens,
            settings.telegram_pictures if rule.pictures is None else rule.pictures,
        )

    def _used_up(self, rule: Rule, used: Used, update: Update) -> str | None:
        limits = self.limits(rule)
        if 0 < limits.messages <= used.messages:
            return USED_UP.format(limits.messages, "messages")
        if 0 < limits.tokens <= used.tokens:
            return USED_UP.format(limits.tokens, "tokens")
        if 0 < limits.pictures <= used.pictures and _draws(update):
            return USED_UP.format(limits.pictures, "pictures")
        return None

    async def count(self, update: Update, cost: Cost) -> None:
        """Keep what an answer has taken, of the person and of the group."""
        if cost.replies:
            used = Used(cost.replies, cost.tokens, cost.pictures)
            accounts = {self._account(str(update.sender)), self._account(str(update.chat.id))}
            await self.rules.use(sorted(accounts), today(), used)

    async def used(self, external_id: str) -> Used:
        """What someone has used today."""
        return await self.rules.used(self._account(external_id), today())

    def _account(self, external_id: str) -> str:
        return hmac.new(self._secret, external_id.encode(), hashlib.sha256).hexdigest()


def today() -> date:
    return datetime.now(UTC).date()


def _generates(update: Update) -> bool:
    if update.act == "pressed":
        return update.text.startswith(("retry:", "redraw:"))
    if update.act == "unreadable":
        return False
    answers = routed(update.text)
    return answers.command.name in GENERATING if isinstance(answers, ToCommand) else answers is not None


def _draws(update: Update) -> bool:
    if update.act == "pressed":
        return update.text.startswith("redraw:")
    answers = routed(update.text)
    return isinstance(answers, ToPictures) or (isinstance(answers, ToCommand) and answers.command.name == "imagine")
