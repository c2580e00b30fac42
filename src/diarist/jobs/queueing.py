"""Who is next: callers who hold the line, then by priority, then the owner who was served least recently."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, case, func, or_, select, update

from diarist.jobs.model import JobKind, JobState
from diarist.jobs.schema import jobs, owners

_RANK = case((jobs.c.kind == JobKind.REQUEST, 0), else_=1)
_TURN = func.coalesce(owners.c.turn, 0)


def next_number(now: datetime, queues: Sequence[str], *, requests_only: bool) -> ScalarSelect[int]:
    """Of the job that is to be taken next. Its row is locked where the database can do that, or two could choose it."""
    fits: ColumnElement[bool] = and_(
        jobs.c.state == JobState.QUEUED, jobs.c.ready, or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
    )
    if queues:
        fits = and_(fits, jobs.c.queue.in_(queues))
    if requests_only:
        fits = and_(fits, jobs.c.kind == JobKind.REQUEST)
    return (
        select(jobs.c.number)
        .outerjoin(owners, owners.c.owner == jobs.c.owner)
        .where(fits)
        .order_by(_RANK, jobs.c.priority.desc(), _TURN, jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
        .scalar_subquery()
    )


def served(connection: Connection, owner: str) -> None:
    """The owner has had a turn: all others come before the next."""
    last = select(func.coalesce(func.max(owners.c.turn), 0)).scalar_subquery()
    connection.execute(update(owners).where(owners.c.owner == owner).values(turn=last + 1))


@dataclass(frozen=True, slots=True)
class _Waiting:
    job_id: str
    owner: str
    turn: int


def positions(connection: Connection) -> dict[str, int]:
    """The place of each queued job, 1 for the next, as they will be taken if no other comes."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.owner, _TURN.label("turn"), _RANK.label("rank"), jobs.c.priority)
        .outerjoin(owners, owners.c.owner == jobs.c.owner)
        .where(jobs.c.state == JobState.QUEUED)
        .order_by(jobs.c.number)
    ).all()
    classes: dict[tuple[int, int], list[_Waiting]] = defaultdict(list)
    for row in rows:
        classes[row.rank, -row.priority].append(_Waiting(row.id, row.owner, row.turn))
    ordered = [job_id for key in sorted(classes) for job_id in _in_turn(classes[key])]
    return {job_id: place for place, job_id in enumerate(ordered, start=1)}


def _in_turn(waiting: Sequence[_Waiting]) -> list[str]:
    """Jobs of one class as they will be taken: the owner who was served least recently first, then round and round."""
    lines: dict[str, deque[str]] = defaultdict(deque)
    turns: dict[str, int] = {}
    for entry in waiting:
        lines[entry.owner].append(entry.job_id)
        turns[entry.owner] = entry.turn
    # Those who were never served have the same turn; of them the one whose job is older is first.
    first = {owner: place for place, owner in enumerate(lines)}
    round_of = deque(sorted(lines, key=lambda owner: (turns[owner], first[owner])))
    found: list[str] = []
    while round_of:
        owner = round_of.popleft()
        found.append(lines[owner].popleft())
        if lines[owner]:
            round_of.append(owner)
    return found
