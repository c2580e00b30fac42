"""The order in which jobs are claimed: requests first, then by priority, then the owner least recently served."""

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
    """Return the query for the number of the job to claim next.

    It locks the row if the database supports that, so that no two transactions choose the same job.
    """
    claimable: ColumnElement[bool] = and_(
        jobs.c.state == JobState.QUEUED, jobs.c.ready, or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
    )
    if queues:
        claimable = and_(claimable, jobs.c.queue.in_(queues))
    if requests_only:
        claimable = and_(claimable, jobs.c.kind == JobKind.REQUEST)
    return (
        select(jobs.c.number)
        .outerjoin(owners, owners.c.owner == jobs.c.owner)
        .where(claimable)
        .order_by(_RANK, jobs.c.priority.desc(), _TURN, jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
        .scalar_subquery()
    )


def record_turn(connection: Connection, owner: str) -> None:
    """Record that a job of this owner was claimed, so that all other owners come first."""
    last = select(func.coalesce(func.max(owners.c.turn), 0)).scalar_subquery()
    connection.execute(update(owners).where(owners.c.owner == owner).values(turn=last + 1))


def positions(connection: Connection) -> dict[str, int]:
    """Return the position of each queued job, 1 for the next, on the assumption that no other job is added."""
    rows = connection.execute(
        select(jobs.c.id, jobs.c.owner, _TURN.label("turn"), _RANK.label("rank"), jobs.c.priority)
        .outerjoin(owners, owners.c.owner == jobs.c.owner)
        .where(jobs.c.state == JobState.QUEUED)
        .order_by(jobs.c.number)
    ).all()
    turns = {row.owner: row.turn for row in rows}
    groups: dict[tuple[int, int], dict[str, deque[_Waiting]]] = defaultdict(lambda: defaultdict(deque))
    for arrival, row in enumerate(rows):
        groups[row.rank, -row.priority][row.owner].append(_Waiting(row.id, arrival))
    ordered = [job_id for key in sorted(groups) for job_id in _round_robin(groups[key], turns)]
    return {job_id: position for position, job_id in enumerate(ordered, start=1)}


def _round_robin(queues_by_owner: Mapping[str, deque[_Waiting]], turns: dict[str, int]) -> Iterator[str]:
    """Yield the jobs of one rank and priority in the order of claims, and update ``turns`` for the following ones."""
    last = max(turns.values(), default=0)
    heads = [(turns[owner], queue[0].arrival, owner) for owner, queue in queues_by_owner.items()]
    heapq.heapify(heads)
    while heads:
        _, _, owner = heapq.heappop(heads)
        yield queues_by_owner[owner].popleft().job_id
        last += 1
        turns[owner] = last
        if queues_by_owner[owner]:
            heapq.heappush(heads, (last, queues_by_owner[owner][0].arrival, owner))


class _Waiting(NamedTuple):
    job_id: str
    arrival: int
