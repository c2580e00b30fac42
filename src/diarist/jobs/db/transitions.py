"""The states of a job and the transitions between them.

::

    queued ──CLAIM──▶ running ──FINISH──▶ succeeded
      ▲                  │
      └──REQUEUE─────────┤
                         ├──FAIL──▶ failed        (also from queued: there is no recording, or no worker)
                         └──CANCEL──▶ canceled    (also from queued)

The three states on the right are final.
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
    """A transition from any of its source states to its target state."""

    name: str
    sources: tuple[JobState, ...]
    target: JobState


CLAIM = Transition("claim", (JobState.QUEUED,), JobState.RUNNING)
REQUEUE = Transition("requeue", (JobState.RUNNING,), JobState.QUEUED)
FINISH = Transition("finish", (JobState.RUNNING,), JobState.SUCCEEDED)
FAIL = Transition("fail", (JobState.QUEUED, JobState.RUNNING), JobState.FAILED)
CANCEL = Transition("cancel", (JobState.QUEUED, JobState.RUNNING), JobState.CANCELED)
TRANSITIONS = (CLAIM, REQUEUE, FINISH, FAIL, CANCEL)

Rows = tuple[Row[*tuple[Any, ...]], ...]


def apply_transition(
    connection: Connection, now: datetime, transition: Transition, where: ColumnElement[bool], **values: object
) -> Rows:
    """Apply a transition to all jobs that match a condition and are in one of its source states.

    The side effects of each transition happen in the same transaction: the event for listeners, and at the end of a job
    the webhook and the metrics.

    Args:
        connection: The connection with the transaction.
        now: The current time.
        transition: The transition.
        where: The condition that selects the jobs.
        values: Further columns of the jobs to update.

    Returns:
        The rows that changed, with the columns ``number``, ``id``, ``kind``, ``created_at`` and ``webhook_url``.
    """
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.state.in_(transition.sources), where)
        .values(state=transition.target, **(_state_columns(transition.target, now) | values))
        .returning(jobs.c.number, jobs.c.id, jobs.c.kind, jobs.c.created_at, jobs.c.webhook_url)
    ).all()
    for row in changed:
        emit_side_effects(connection, now, row.id, row.kind, transition.target, row.webhook_url)
    return tuple(changed)


def emit_side_effects(
    connection: Connection, now: datetime, job_id: str, kind: JobKind, state: JobState, webhook_url: str | None
) -> None:
    """Record what follows from a new state of a job: an event, and at its end a webhook task and metrics."""
    if kind is JobKind.JOB:
        job_events.append_state(connection, now, job_id, state)
    if state.ended:
        delete_chunks(connection, job_id)
        metrics_storage.increment(connection, metrics_storage.JOBS_ENDED, state=state)
        if webhook_url is not None:
            add_task(connection, job_id, WEBHOOK, {"event": f"job.{state}"}, now)


def _state_columns(target: JobState, now: datetime) -> dict[str, object]:
    """Return the values of columns that depend on the state."""
    if target is JobState.RUNNING:
        return {"started_at": now, "stage": "starting", "progress": 0.0, "not_before": None}
    unassigned: dict[str, object] = {"worker": None, "lease_until": None}
    if target is JobState.QUEUED:
        return {**unassigned, "stage": "queued", "progress": 0.0}
    return {**unassigned, "ended_at": now}
