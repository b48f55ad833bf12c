"""Who may use a platform, and how much was used of it a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select, update

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
_OF_A_DAY = (usage.c.account == bindparam("of"), usage.c.day == bindparam("on_day"))
_USED = select(*(usage.c[name] for name in Used.__dataclass_fields__)).where(*_OF_A_DAY)
_USE_MORE = (
    update(usage)
    .where(*_OF_A_DAY)
    .values({name: usage.c[name] + bindparam(f"{name}_more") for name in Used.__dataclass_fields__})
)
_BEGIN_DAY = insert(usage)


class Access:
    """The rules of one platform, and what its accounts used."""

    def __init__(self, database: Database, platform: str) -> None:
        self._database = database
        self._platform = platform

    async def rule(self, external_id: str) -> Rule:
        return await self._database.query(_rule, self._platform, external_id)

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
        return await self._database.query(_used, account, day)

    async def use(self, accounts: Sequence[str], day: date, used: Used) -> None:
        """Add to what was used on a day; what is older than the day before is forgotten."""
        await self._database.change("usage", _use, accounts, day, used)


def _rule(connection: Connection, platform: str, external_id: str) -> Rule:
    row = connection.execute(_RULE, {"on_platform": platform, "whose": external_id}).one_or_none()
    return Rule(external_id) if row is None else Rule(*row)


def _used(connection: Connection, account: str, day: date) -> Used:
    row = connection.execute(_USED, {"of": account, "on_day": day}).one_or_none()
    return Used() if row is None else Used(*row)


def _use(connection: Connection, accounts: Sequence[str], day: date, used: Used) -> None:
    for account in accounts:
        before = {"of": account, "on_day": day}
        more = {"messages_more": used.messages, "tokens_more": used.tokens, "pictures_more": used.pictures}
        if not connection.execute(_USE_MORE, before | more).rowcount:
            connection.execute(_BEGIN_DAY, {"account": account, "day": day, **asdict(used)})
            connection.execute(delete(usage).where(usage.c.day < day - timedelta(days=1)))
