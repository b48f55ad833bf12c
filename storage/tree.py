"""Queries over the tree that the messages of a conversation are. Built once: building takes longer than answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, and_, bindparam, case, func, literal, select
from sqlalchemy.sql.selectable import ScalarSelect

from storage.schema import attachments, feedback, messages, summaries

NO_LIMIT = 2**31 - 1

CONVERSATION_OF_LEAF = select(messages.c.conversation_id).where(messages.c.id == bindparam("leaf")).scalar_subquery()


def _ancestors(since: ColumnElement[Any] | None) -> CTE:
    """The message `leaf`, its parent, and so on, `limit` of them, with their distance from it, from 1.

    A message is younger than its parent: none older than number `since` is looked at.
    """
    start = select(messages.c.id, messages.c.parent_id, literal(1).label("depth")).where(
        messages.c.id == bindparam("leaf")
    )
    branch = start.cte("branch", recursive=True)
    step = (
        select(messages.c.id, messages.c.parent_id, (branch.c.depth + 1).label("depth"))
        .join(branch, messages.c.id == branch.c.parent_id)
        .where(branch.c.depth < bindparam("limit"))
    )
    if since is not None:
        step = step.where(messages.c.seq >= since)
    return branch.union_all(step)


def _siblings(*, before: bool) -> ColumnElement[int]:
    """How many messages answer what this one answers; with `before`, how many of them are no younger than it.

    First messages and later ones apart, so that both are looked up in an index by every back end.
    """
    other = messages.alias()

    def count(same_parent: ColumnElement[bool]) -> ScalarSelect[int]:
        query = select(func.count()).where(other.c.conversation_id == messages.c.conversation_id, same_parent)
        query = query.where(other.c.seq <= messages.c.seq) if before else query
        return query.correlate(messages).scalar_subquery()

    return case(
        (messages.c.parent_id.is_(None), count(other.c.parent_id.is_(None))),
        else_=count(other.c.parent_id == messages.c.parent_id),
    )


def with_siblings(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """`columns` of messages, and what else a branch shows: `position`, `siblings`, `rating`, `summary`, `note`,
    `attached`."""
    return (
        select(
            *columns,
            _siblings(before=True).label("position"),
            _siblings(before=False).label("siblings"),
            func.coalesce(feedback.c.value, 0).label("rating"),
            summaries.c.text.label("summary"),
            func.coalesce(feedback.c.note, "").label("note"),
            select(func.count())
            .where(attachments.c.message_id == messages.c.id)
            .correlate(messages)
            .scalar_subquery()
            .label("attached"),
        )
        .outerjoin(
            feedback, and_(feedback.c.message_id == messages.c.id, feedback.c.person_id == bindparam("person"))
        )
        .outerjoin(summaries, summaries.c.message_id == messages.c.id)
    )


def branch(columns: Sequence[ColumnElement[Any]], since: ColumnElement[Any] | None = None) -> Select[Any]:
    """The last `limit` messages of the branch that ends in `leaf`, none before number `since`, the oldest first."""
    ancestors = _ancestors(since)
    query = with_siblings(columns).join(ancestors, ancestors.c.id == messages.c.id)
    return query.order_by(ancestors.c.depth.desc())


def following(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """`message` and what follows it on the branch that ends in `leaf`, `count` messages, the oldest first.

    Walks the ids between the two; reads no more than those rows. It begins with another message where `message` is
    not on that branch.
    """
    since = select(messages.c.seq).where(messages.c.id == bindparam("message")).scalar_subquery()
    ancestors = _ancestors(since)
    first = select(ancestors.c.id, ancestors.c.depth).order_by(ancestors.c.depth.desc()).limit(bindparam("count"))
    chosen = first.subquery()
    query = with_siblings(columns).join(chosen, chosen.c.id == messages.c.id)
    return query.order_by(chosen.c.depth.desc())


def _newest_leaf() -> Select[Any]:
    """From `message` down, at each step to the child that was made last."""
    start = select(literal(1).label("depth"), messages.c.id).where(messages.c.id == bindparam("message"))
    path = start.cte("path", recursive=True)
    child = (
        select(messages.c.id)
        .where(messages.c.conversation_id == bindparam("conversation"), messages.c.parent_id == path.c.id)
        .order_by(messages.c.seq.desc())
        .limit(1)
        .correlate(path)
        .scalar_subquery()
    )
    path = path.union_all(select(path.c.depth + 1, child).where(path.c.id.is_not(None)))
    return select(path.c.id).where(path.c.id.is_not(None)).order_by(path.c.depth.desc()).limit(1)


def _descendants() -> Select[Any]:
    """Ids of `message` and of all that was said after it, on all branches."""
    start = select(messages.c.id).where(messages.c.id == bindparam("message"))
    below = start.cte("below", recursive=True)
    below = below.union_all(select(messages.c.id).join(below, messages.c.parent_id == below.c.id))
    return select(below.c.id)


NEWEST_LEAF = _newest_leaf()
DESCENDANTS = _descendants()
