"""Conversion between jobs and rows of the table ``jobs``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection, Row, Select, select

from diarist.jobs.db import serialization
from diarist.jobs.db.schema import jobs, labels
from diarist.jobs.model import Job, JobError, JobSpec

MAX_IDS_PER_QUERY = 500
"""The maximum number of IDs in one statement. Databases accept some ten thousand values."""

COLUMNS = tuple(column for column in jobs.columns if column.name != "number")


def in_batches(job_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield the IDs in batches that fit into one statement."""
    remaining = iter(job_ids)
    while batch := tuple(islice(remaining, MAX_IDS_PER_QUERY)):
        yield batch


def values_of(job: Job) -> dict[str, object]:
    """Return the row of a job, without its labels, which have a table of their own."""
    spec = job.spec
    return {
        "id": job.id,
        "state": job.state,
        "kind": spec.kind,
        "owner": spec.owner,
        "queue": spec.queue,
        "priority": spec.priority,
        "options": serialization.dump_options(spec.options),
        "filename": spec.filename,
        "size_bytes": job.size_bytes,
        "request_id": spec.request_id,
        "webhook_url": spec.webhook_url,
        "source_url": spec.source_url,
        "idempotency_key": spec.idempotency_key,
        "fingerprint": spec.fingerprint,
        "traceparent": spec.traceparent,
        "created_at": job.created_at,
        "ready": job.ready,
        "recording": job.recording,
        "stage": job.stage,
        "progress": job.progress,
        "attempts": job.attempts,
        "worker_crashes": job.worker_crashes,
        "service_crashes": job.service_crashes,
        "not_before": job.not_before,
        "worker": job.worker,
        "lease_until": job.lease_until,
        "caller_lease_until": job.caller_lease_until,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "finalized": job.finalized,
        "duration": job.duration,
        "timings": serialization.dump_timings(job.timings),
        "error_code": None if job.error is None else job.error.code,
        "error_message": None if job.error is None else job.error.message,
    }


def job_of(row: Row[*tuple[object, ...]], labels: tuple[tuple[str, str], ...] = ()) -> Job:
    """Return the job of a row with the columns ``COLUMNS``."""
    return Job(
        id=row.id,
        state=row.state,
        spec=JobSpec(
            options=serialization.load_options(row.options),
            filename=row.filename,
            request_id=row.request_id,
            owner=row.owner,
            kind=row.kind,
            queue=row.queue,
            priority=row.priority,
            labels=labels,
            webhook_url=row.webhook_url,
            source_url=row.source_url,
            idempotency_key=row.idempotency_key,
            fingerprint=row.fingerprint,
            traceparent=row.traceparent,
        ),
        created_at=row.created_at,
        size_bytes=row.size_bytes,
        ready=row.ready,
        recording=row.recording,
        stage=row.stage,
        progress=row.progress,
        attempts=row.attempts,
        worker_crashes=row.worker_crashes,
        service_crashes=row.service_crashes,
        not_before=row.not_before,
        worker=row.worker,
        lease_until=row.lease_until,
        caller_lease_until=row.caller_lease_until,
        started_at=row.started_at,
        ended_at=row.ended_at,
        finalized=row.finalized,
        duration=row.duration,
        timings=serialization.load_timings(row.timings),
        error=None if row.error_code is None else JobError(row.error_code, row.error_message),
    )


def jobs_of(connection: Connection, rows: Sequence[Row[*tuple[object, ...]]]) -> tuple[Job, ...]:
    """Return the jobs of rows with the columns ``COLUMNS``, with their labels."""
    labels_by_job: dict[str, list[tuple[str, str]]] = {row.id: [] for row in rows}
    for batch in in_batches(labels_by_job):
        query: Select[*tuple[object, ...]] = select(labels).where(labels.c.job_id.in_(batch)).order_by(labels.c.name)
        for label in connection.execute(query):
            labels_by_job[label.job_id].append((label.name, label.value))
    return tuple(job_of(row, tuple(labels_by_job[row.id])) for row in rows)
