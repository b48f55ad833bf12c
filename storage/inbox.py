"""What came from a platform and is not answered yet: stored before it is confirmed, done when its answer is out.

Several processes may share one. All that waits in a lane belongs to one of them, its owner, until nothing waits
there; what an owner that has died leaves behind is taken over by another.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database, insert_rows, once_more_if_lost
from storage.errors import StorageError
from storage.processes import is_gone, this_process
from storage.schema import inbox

KEPT_DONE = 4096
"""Numbers of what is done that are kept, newest first: a platform that sends one again does so soon."""

PRUNE_EVERY = 256

ASIDE = "!"
"""Ends the lane of what does not wait for the others of its chat."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that came. What is `urgent` passes those that wait."""

    update_id: int
    lane: str
    sender: str
    payload: str
    urgent: bool = False


@dataclass(slots=True)
class Entry:
    """What waits here, or is being answered, and how far that was when it was read.

    `state` is `sending` where a part of its answer was on its way: `parts` are known to be out.
    """

    seq: int
    update_id: int
    lane: str
    payload: str
    state: str
    turned_away: bool
    stopped: bool
    reply_id: str | None
    parts: int
    shown_id: int | None
    attempts: int


_COLUMNS = [inbox.c[name] for name in Entry.__dataclass_fields__]
_NOTE = update(inbox).where(inbox.c.seq == bindparam("number"), inbox.c.owner == bindparam("me"))
_OPEN = select(inbox.c.seq).where(inbox.c.seq == bindparam("number"), inbox.c.state != "done")
_EMPTY = {"lane": "", "sender": "", "payload": "", "reply_id": None, "owner": None}
_DONE = update(inbox).where(inbox.c.seq == bindparam("number")).values(state="done", shown_id=None, **_EMPTY)


class Inbox:
    """What came to one account on a platform.

    Args:
        database: keeps it.
        source: the account.
        most: how much may wait in a lane, in all topics of a chat (their lanes are CHAT/TOPIC), and, of what is
            urgent, in a lane; what comes beyond that is turned away.
    """

    def __init__(self, database: Database, source: str, most: int) -> None:
        self._database = database
        self._mine = inbox.c.source == source
        self._open = (self._mine, inbox.c.state != "done")
        self._source = source
        self._most = most
        self._done = 0
        self._full: set[str] = set()
        """Lanes that were full, and whose people have been told; nothing more of them is answered."""

    def emptied(self, lane: str) -> None:
        """Nothing waits in a lane any more: whoever fills it again is told again."""
        self._full.discard(lane)

    async def store(self, arrivals: Iterable[Arrival]) -> list[Entry]:
        """Keep what has come, once, whatever comes twice; gives what of it is for this process to answer.

        What comes to a lane that is full is turned away: the first is marked so, and passes the lane to be told;
        of those after it only the numbers are kept.
        """
        fresh = {arrival.update_id: arrival for arrival in arrivals}
        if not fresh:
            return []
        async with self._database.write(self._source) as connection:
            known = select(inbox.c.update_id).where(self._mine, inbox.c.update_id.in_(list(fresh)))
            for update_id in (await connection.execute(known)).scalars():
                del fresh[update_id]
            if not fresh:
                return []
            waiting = await self._waiting(connection, {arrival.lane for arrival in fresh.values()})
            rows = [self._row(fresh[update_id], waiting) for update_id in sorted(fresh)]
            await insert_rows(connection, inbox, rows)
            query = select(*_COLUMNS).where(self._mine, inbox.c.update_id.in_(list(fresh)))
            query = query.where(inbox.c.owner == this_process(), inbox.c.state != "done").order_by(inbox.c.update_id)
            return [Entry(*row) for row in await connection.execute(query)]

    async def _waiting(self, connection: AsyncConnection, lanes: set[str]) -> dict[str, tuple[int, str]]:
        """How many wait in each lane of the chats that these lanes are of, and whose they are."""
        query = select(inbox.c.lane, func.count(), func.max(inbox.c.owner)).where(*self._open)
        if not any("/" in lane for lane in lanes):  # else the other topics count too
            query = query.where(inbox.c.lane.in_([*lanes, *(lane + ASIDE for lane in lanes)]))
        rows = await connection.execute(query.group_by(inbox.c.lane))
        return {lane: (count, owner) for lane, count, owner in rows}

    def _row(self, arrival: Arrival, waiting: dict[str, tuple[int, str]]) -> dict[str, Any]:
        me, now = this_process(), datetime.now(UTC)
        lane, aside = arrival.lane, arrival.lane + ASIDE
        if arrival.urgent:
            full = told = waiting.get(aside, (0, me))[0] >= self._most
        else:
            full = _together(lane, waiting) >= self._most
            told = full and lane in self._full
            (self._full.add if full else self._full.discard)(lane)
        goes = aside if full or arrival.urgent else lane
        count, owner = waiting.get(goes, (0, me))
        owner = me if goes == aside else owner
        if not told:
            waiting[goes] = (count + 1, owner)
        return {
            "source": self._source,
            "update_id": arrival.update_id,
            "lane": "" if told else goes,
            "sender": "" if told else arrival.sender,
            "payload": "" if told else arrival.payload,
            "state": "done" if told else "waiting",
            "turned_away": full,
            "stopped": False,
            "handed": owner != me,
            "parts": 0,
            "attempts": 0,
            "owner": owner,
            "heartbeat": now,
            "arrived": now,
        }

    async def look(self) -> tuple[list[Entry], list[str]]:
        """What is for this process to answer from now on, the oldest first, and the lanes in which what this process
        answers is no longer wanted.

        That is what others stored for it, and what a process that has died has left.
        """
        me, now = this_process(), datetime.now(UTC)
        others = inbox.c.owner.is_distinct_from(me)
        unknown = or_(others, inbox.c.handed, inbox.c.stopped)
        columns = (inbox.c.seq, inbox.c.lane, inbox.c.owner, inbox.c.heartbeat, inbox.c.handed, inbox.c.stopped)
        query = select(*columns)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.where(*self._open, unknown))).all()
        stopped = [row.lane for row in rows if row.stopped and row.owner == me]
        handed = [row.seq for row in rows if row.handed and row.owner == me]
        if not handed and not any(row.owner != me and is_gone(row.owner, row.heartbeat, now) for row in rows):
            return [], stopped
        async with self._database.write(self._source) as connection:
            left = select(inbox.c.seq, inbox.c.owner, inbox.c.heartbeat).where(*self._open, others)
            # Seen again, now that nobody else can take it: another may have done so meanwhile.
            orphans = [row.seq for row in await connection.execute(left) if is_gone(row.owner, row.heartbeat, now)]
            if orphans:
                await connection.execute(
                    update(inbox)
                    .where(inbox.c.seq.in_(orphans))
                    .values(owner=me, heartbeat=now, attempts=inbox.c.attempts + 1)
                )
            taken = handed + orphans
            await connection.execute(update(inbox).where(inbox.c.seq.in_(taken)).values(handed=False))
            entries = select(*_COLUMNS).where(inbox.c.seq.in_(taken)).order_by(inbox.c.update_id)
            return [Entry(*row) for row in await connection.execute(entries)], stopped

    async def beat(self) -> None:
        """Show that this process lives."""
        async with self._database.write(self._source) as connection:
            mine = update(inbox).where(*self._open, inbox.c.owner == this_process())
            await connection.execute(mine.values(heartbeat=datetime.now(UTC)))

    @once_more_if_lost
    async def note(self, seq: int, **values: Any) -> bool:
        """Keep how far the answer is. False: it is another process's by now, which held this one for dead."""
        return await self._database.change(f"{self._source} {seq}", _note, seq, values)

    @once_more_if_lost
    async def done(self, seq: int) -> None:
        """Its answer is out: of what came, only the number stays."""
        await self._database.change(f"{self._source} {seq}", Connection.execute, _DONE, {"number": seq})
        self._done += 1
        if self._done % PRUNE_EVERY:
            return
        with suppress(StorageError):  # it is done in any case; the old ones go another time
            async with self._database.write(self._source) as connection:
                newest = (await connection.execute(select(func.max(inbox.c.seq)).where(self._mine))).scalar() or 0
                old = (self._mine, inbox.c.state == "done", inbox.c.seq <= newest - KEPT_DONE)
                await connection.execute(delete(inbox).where(*old))

    async def stop(self, lane: str) -> bool:
        """Say that what is being answered in a lane, by whichever process, is no longer wanted; False where nothing
        is."""
        first = select(func.min(inbox.c.update_id)).where(*self._open, inbox.c.lane == lane).scalar_subquery()
        async with self._database.write(self._source) as connection:
            wanted = update(inbox).where(*self._open, inbox.c.lane == lane, inbox.c.update_id == first)
            return bool((await connection.execute(wanted.values(stopped=True))).rowcount)

    async def waiting(self) -> tuple[int, datetime | None]:
        """How much waits, and since when."""
        query = select(func.count(), func.min(inbox.c.arrived)).where(*self._open)
        async with self._database.read() as connection:
            count, since = (await connection.execute(query)).one()
        return count, since


def _note(connection: Connection, seq: int, values: dict[str, Any]) -> bool:
    mine = {"number": seq, "me": this_process()}
    if connection.execute(_NOTE.values({name: bindparam(name) for name in values}), mine | values).rowcount:
        return True
    # forgotten meanwhile: there is nothing to keep
    return connection.execute(_OPEN, {"number": seq}).first() is None


def _together(lane: str, waiting: dict[str, tuple[int, str]]) -> int:
    """How much waits in a lane; of a topic, in all topics of its chat. What is aside does not count."""
    chat, topic, _ = lane.partition("/")
    lanes = [one for one in waiting if one.startswith(f"{chat}/") and not one.endswith(ASIDE)] if topic else [lane]
    return sum(waiting.get(one, (0, ""))[0] for one in lanes)


async def forget_sender(connection: AsyncConnection, platform: str, external_id: str) -> None:
    """Empty what waits of one person; its numbers stay, so that nothing of it is taken again."""
    theirs = (inbox.c.source.startswith(f"{platform}:", autoescape=True), inbox.c.sender == external_id)
    await connection.execute(update(inbox).where(*theirs).values(state="done", **_EMPTY))
