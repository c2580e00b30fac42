"""Who is next: callers who hold the line, then by priority, then the owner who was served least recently."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, case, func, or_, select, update

from diarist.jobs.db.schema import jobs, owners
from diarist.jobs.model import JobKind, JobState

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


def record_turn(connection: Connection, owner: str) -> None:
    """The owner has had a turn: all others come before the next."""
    last = select(func.coalesce(func.max(owners.c.turn), 0)).scalar_subquery()
    connection.execute(update(owners).where(owners.c.owner == owner).values(turn=last + 1))


def positions(connection: Connection) -> dict[str, int]:
    """The place of each queued job, 1 for the next, as they will be taken if no other comes."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.owner, _TURN.label("turn"), _RANK.label("rank"), jobs.c.priority)
        .outerjoin(owners, owners.c.owner == jobs.c.owner)
        .where(jobs.c.state == JobState.QUEUED)
        .order_by(jobs.c.number)
    ).all()
    turns = {row.owner: row.turn for row in rows}
    classes: dict[tuple[int, int], dict[str, deque[_Waiting]]] = defaultdict(lambda: defaultdict(deque))
    for arrival, row in enumerate(rows):
        classes[row.rank, -row.priority][row.owner].append(_Waiting(row.id, arrival))
    ordered = [job_id for key in sorted(classes) for job_id in _in_turn(classes[key], turns)]
    return {job_id: place for place, job_id in enumerate(ordered, start=1)}


def _in_turn(lines: Mapping[str, deque[_Waiting]], turns: dict[str, int]) -> Iterator[str]:
    """Jobs of one class as they will be taken; notes in ``turns`` how owners have had theirs, for the classes after."""
    last = max(turns.values(), default=0)
    heads = [(turns[owner], line[0].arrival, owner) for owner, line in lines.items()]
    heapq.heapify(heads)
    while heads:
        _, _, owner = heapq.heappop(heads)
        yield lines[owner].popleft().job_id
        last += 1
        turns[owner] = last
        if lines[owner]:
            heapq.heappush(heads, (last, lines[owner][0].arrival, owner))


class _Waiting(NamedTuple):
    job_id: str
    arrival: int
