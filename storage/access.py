"""Who may use a platform, and how much was used of it a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import bindparam, delete, insert, select, update

from storage.database import Database
from storage.schema import access, usage


@dataclass(frozen=True, slots=True)
class Rule:
    """What was decided about a person or a group; None: as the settings say. Quotas are a day's; 0: no end."""

    external_id: str
    allowed: bool | None = None
    messages: int | None = None
    tokens: int | None = None
    pictures: int | None = None


@dataclass(frozen=True, slots=True)
class Used:
    messages: int = 0
    tokens: int = 0
    pictures: int = 0


_RULES = (
    select(*(access.c[name] for name in Rule.__dataclass_fields__))
    .where(access.c.platform == bindparam("on_platform"))
    .order_by(access.c.external_id)
)
_RULE = _RULES.where(access.c.external_id == bindparam("whose"))


class Access:
    """The rules of one platform, and what its accounts used."""

    def __init__(self, database: Database, platform: str) -> None:
        self._database = database
        self._platform = platform

    async def rule(self, external_id: str) -> Rule:
        async with self._database.read() as connection:
            values = {"on_platform": self._platform, "whose": external_id}
            row = (await connection.execute(_RULE, values)).one_or_none()
        return Rule(external_id) if row is None else Rule(*row)

    async def rules(self) -> Sequence[Rule]:
        async with self._database.read() as connection:
            return [Rule(*row) for row in await connection.execute(_RULES, {"on_platform": self._platform})]

    async def decide(self, external_id: str, **decided: bool | int | None) -> None:
        """Change what is decided about someone: `allowed`, `messages`, `tokens`, `pictures`."""
        mine = (access.c.platform == self._platform, access.c.external_id == external_id)
        async with self._database.write() as connection:
            changed = await connection.execute(update(access).where(*mine).values(**decided))
            if not changed.rowcount:
                row = {"platform": self._platform, "external_id": external_id, **decided}
                await connection.execute(insert(access).values(**row))

    async def used(self, account: str, day: date) -> Used:
        query = select(usage.c.messages, usage.c.tokens, usage.c.pictures)
        async with self._database.read() as connection:
            row = (
                await connection.execute(query.where(usage.c.account == account, usage.c.day == day))
            ).one_or_none()
        return Used() if row is None else Used(*row)

    async def use(self, accounts: Sequence[str], day: date, used: Used) -> None:
        """Add to what was used on a day; what is older than the day before is forgotten."""
        async with self._database.write("usage") as connection:
            for account in accounts:
                changed = await connection.execute(
                    update(usage)
                    .where(usage.c.account == account, usage.c.day == day)
                    .values(
                        messages=usage.c.messages + used.messages,
                        tokens=usage.c.tokens + used.tokens,
                        pictures=usage.c.pictures + used.pictures,
                    )
                )
                if not changed.rowcount:
                    row = {"account": account, "day": day}
                    row |= {"messages": used.messages, "tokens": used.tokens, "pictures": used.pictures}
                    await connection.execute(insert(usage).values(**row))
                    await connection.execute(delete(usage).where(usage.c.day < day - timedelta(days=1)))
