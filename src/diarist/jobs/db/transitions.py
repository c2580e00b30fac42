"""The states of a job and the only ways from one to the next.

::

    queued ──CLAIM──▶ running ──FINISH──▶ succeeded
      ▲                  │
      └──REQUEUE───────┤
                         ├──FAIL──▶ failed        (from queued too: a recording that cannot be fetched)
                         └──CANCEL──▶ canceled    (from queued too)

The three on the right are final: nothing leads out of them but deletion.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, update

from diarist.jobs.db import job_events, metrics_storage
from diarist.jobs.db.chunks import delete_chunks
from diarist.jobs.db.outbox import WEBHOOK, add_task
from diarist.jobs.db.schema import jobs
from diarist.jobs.model import JobKind, JobState


@dataclass(frozen=True, slots=True)
class Transition:
    """From any of some states to another one."""

    name: str
    sources: tuple[JobState, ...]
    target: JobState


CLAIM = Transition("claim", (JobState.QUEUED,), JobState.RUNNING)
REQUEUE = Transition("give back", (JobState.RUNNING,), JobState.QUEUED)
FINISH = Transition("finish", (JobState.RUNNING,), JobState.SUCCEEDED)
FAIL = Transition("fail", (JobState.QUEUED, JobState.RUNNING), JobState.FAILED)
CANCEL = Transition("cancel", (JobState.QUEUED, JobState.RUNNING), JobState.CANCELED)
TRANSITIONS = (CLAIM, REQUEUE, FINISH, FAIL, CANCEL)

Rows = tuple[Row[*tuple[Any, ...]], ...]


def apply_transition(
    connection: Connection, now: datetime, transition: Transition, where: ColumnElement[bool], **values: object
) -> Rows:
    """Take the jobs that ``where`` holds for, and that are in a state that the transition begins in, to its target.

    With each, in the same transaction, what follows from it: the event that listeners hear, and at the end the webhook
    and the counts.

    Returns:
        What was changed, with the columns ``number``, ``id``, ``kind``, ``created_at`` and ``webhook_url``.
    """
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.state.in_(transition.sources), where)
        .values(state=transition.target, **(_meanwhile(transition.target, now) | values))
        .returning(jobs.c.number, jobs.c.id, jobs.c.kind, jobs.c.created_at, jobs.c.webhook_url)
    ).all()
    for row in changed:
        emit_side_effects(connection, now, row.id, row.kind, transition.target, row.webhook_url)
    return tuple(changed)


def emit_side_effects(
    connection: Connection, now: datetime, job_id: str, kind: JobKind, state: JobState, webhook_url: str | None
) -> None:
    """What follows from a job's being in a new state."""
    if kind is JobKind.JOB:
        job_events.append_state(connection, now, job_id, state)
    if state.ended:
        delete_chunks(connection, job_id)
        metrics_storage.increment(connection, metrics_storage.JOBS_ENDED, state=state)
        if webhook_url is not None:
            add_task(connection, job_id, WEBHOOK, {"event": f"job.{state}"}, now)


def _meanwhile(target: JobState, now: datetime) -> dict[str, object]:
    """What a job in this state has and has not."""
    if target is JobState.RUNNING:
        return {"started_at": now, "stage": "starting", "progress": 0.0, "not_before": None}
    free: dict[str, object] = {"worker": None, "lease_until": None}
    if target is JobState.QUEUED:
        return {**free, "stage": "queued", "progress": 0.0}
    return {**free, "ended_at": now}
