"""Events of jobs in the table ``events``: new states and final utterances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, func, insert, select

from diarist.jobs.db import serialization
from diarist.jobs.db.schema import events
from diarist.jobs.model import JobEvent, JobState
from diarist.types import Utterance


def append_state(connection: Connection, now: datetime, job_id: str, state: JobState) -> None:
    """Append the event that a job is in a new state. The caller's transaction must have locked the job's row."""
    _append(connection, now, job_id, "state", {"state": state})


def append_utterances(
    connection: Connection, now: datetime, job_id: str, utterances: Sequence[Utterance], first: int
) -> None:
    """Append an event for each final utterance. The caller's transaction must have locked the job's row.

    Args:
        connection: The connection with the transaction.
        now: When the utterances became final.
        job_id: The job.
        utterances: The utterances in order.
        first: The index of the first of them within the job, from 0.
    """
    for index, utterance in enumerate(utterances, start=first):
        body = json.loads(serialization.dump_utterance(utterance))
        _append(connection, now, job_id, "utterance", {"index": index, "utterance": body})


def list_events(connection: Connection, job_id: str, after: int, limit: int) -> tuple[JobEvent, ...]:
    """Return at most ``limit`` events of a job whose numbers are greater than ``after``, in order."""
    query = select(events).where(events.c.job_id == job_id, events.c.number > after)
    rows = connection.execute(query.order_by(events.c.number).limit(limit)).all()
    return tuple(_event(row) for row in rows)


def _append(connection: Connection, now: datetime, job_id: str, kind: str, body: dict[str, object]) -> None:
    # The lock on the job's row keeps two transactions from choosing the same number.
    last = select(func.coalesce(func.max(events.c.number), 0)).where(events.c.job_id == job_id)
    number = connection.execute(last).scalar_one() + 1
    connection.execute(
        insert(events).values(
            job_id=job_id, number=number, kind=kind, at=now, body=json.dumps(body, separators=(",", ":"))
        )
    )


def _event(row: Row[*tuple[object, ...]]) -> JobEvent:
    body = json.loads(row.body)
    if row.kind == "state":
        return JobEvent(row.number, row.kind, row.at, state=JobState(body["state"]))
    return JobEvent(
        row.number,
        row.kind,
        row.at,
        index=body["index"],
        utterance=serialization.load_utterance(json.dumps(body["utterance"])),
    )
