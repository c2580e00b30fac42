"""Jobs as rows of the table ``jobs`` and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection, Row, Select, select

from diarist.jobs.db import serialization
from diarist.jobs.db.schema import jobs, labels
from diarist.jobs.model import Job, JobError, JobSpec

ASKED_AT_ONCE = 500
"""Ids in one statement: databases take some ten thousand values at the most."""

COLUMNS = tuple(column for column in jobs.columns if column.name != "number")


def in_batches(job_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """As many ids at a time as may stand in one statement."""
    rest = iter(job_ids)
    while some := tuple(islice(rest, ASKED_AT_ONCE)):
        yield some


def values_of(job: Job) -> dict[str, object]:
    """The row of a job, without its labels, which have a table of their own."""
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
    """The job of a row of ``COLUMNS``."""
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
    """Those of rows of ``COLUMNS``, with their labels."""
    named: dict[str, list[tuple[str, str]]] = {row.id: [] for row in rows}
    for some in in_batches(named):
        wanted: Select[*tuple[object, ...]] = select(labels).where(labels.c.job_id.in_(some)).order_by(labels.c.name)
        for label in connection.execute(wanted):
            named[label.job_id].append((label.name, label.value))
    return tuple(job_of(row, tuple(named[row.id])) for row in rows)
