"""The job store on a SQL database.

Leases are in the time of ``Database.now``, because processes share them. A clock that jumps does no harm to results:
whoever holds a job is asked at every step (``renew``, ``finish`` and ``fail`` name the worker), so that a job which was
taken twice still ends once. Jumping forward can make a running job look abandoned, so that work is done again; jumping
back makes an abandoned job wait longer, unless the supervisor sees the death and calls ``release``, which looks at no
clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, func, insert, select, update

from diarist.errors import JobFailed, JobNotFound
from diarist.jobs.db import (
    chunk_rows,
    outbox_rows,
    pagination,
    scheduling,
    serialization,
    stored_metrics,
    worker_reports,
)
from diarist.jobs.db.database import Database, open_database, serialize_writers
from diarist.jobs.db.quotas import UNFINISHED, by_key, check_fingerprint, check_limits
from diarist.jobs.db.rows import COLUMNS, in_batches, job_of, jobs_of, values_of
from diarist.jobs.db.schema import events, jobs, labels, outbox_tasks, owners, transcripts
from diarist.jobs.db.transitions import CANCEL, CLAIM, FAIL, FINISH, GIVE_BACK, append_event, change, emit_side_effects
from diarist.jobs.db.upsert import upsert
from diarist.jobs.model import (
    Job,
    JobError,
    JobEvent,
    JobFilter,
    JobKind,
    JobPage,
    JobState,
    Limits,
    WorkerReport,
)
from diarist.settings import Settings
from diarist.types import Seconds, Transcript, Utterance

MAX_SERVICE_CRASHES = 25
"""A job during which the whole service died so often is failed: it may be the job that kills it, and may not."""

SERVICE_CRASHES_WITHOUT_DELAY = 3
"""After more than these it waits longer each time, so that other jobs get done in between."""


def open_store(settings: Settings) -> SqlJobStore:
    """The store of this installation, made where it is missing.

    Raises:
        ConfigurationError: DATABASE_URL names no database that is known.
        StoreUnavailable: it cannot be read or written; the message says what to do.
    """
    return SqlJobStore(open_database(settings))


class SqlJobStore:
    """A ``JobStore`` on a ``Database``."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def close(self) -> None:
        self.database.close()

    def create(self, job: Job, limits: Limits | None = None, caller_lease_s: Seconds | None = None) -> Job:
        order = job.order
        with self.database.writing() as connection:
            now = self.database.now(connection)
            if caller_lease_s is not None:
                job = replace(job, caller_lease_until=now + timedelta(seconds=caller_lease_s))
            if limits is not None or order.idempotency_key is not None:
                # One at a time, or two could both be the last that is allowed.
                serialize_writers(connection)
            if order.idempotency_key is not None:
                earlier = by_key(connection, order.owner, order.idempotency_key)
                if earlier is not None:
                    return check_fingerprint(earlier, order.fingerprint)
            if limits is not None:
                check_limits(connection, order.owner, limits)
            connection.execute(insert(jobs).values(values_of(job)))
            if order.labels:
                rows = [{"job_id": job.id, "name": name, "value": value} for name, value in order.labels]
                connection.execute(insert(labels), rows)
            upsert(connection, owners, {"owner": order.owner, "turn": 0}, {})
            emit_side_effects(connection, now, job.id, order.kind, job.state, order.webhook_url)
            if order.source_url is not None:
                outbox_rows.add(connection, job.id, outbox_rows.FETCH, {}, now)
        return job

    def check_limits(self, owner: str, limits: Limits) -> None:
        with self.database.reading() as connection:
            check_limits(connection, owner, limits)

    def get(self, job_id: str) -> Job:
        with self.database.reading() as connection:
            return _get(connection, job_id)

    def page(self, wanted: JobFilter, limit: int, cursor: str | None = None) -> JobPage:
        with self.database.reading() as connection:
            rows = connection.execute(pagination.page(wanted, limit + 1, cursor)).all()
            found = jobs_of(connection, rows[:limit])
        return JobPage(found, pagination.cursor_after(found[-1]) if len(rows) > limit else None)

    def by_key(self, owner: str, idempotency_key: str) -> Job | None:
        with self.database.reading() as connection:
            return by_key(connection, owner, idempotency_key)

    def attach_recording(self, job_id: str, size_bytes: int, filename: str) -> bool:
        waits = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
        named = case((jobs.c.filename == "", filename), else_=jobs.c.filename)
        return self._update(
            waits, ready=True, recording=True, stage="queued", progress=0.0, size_bytes=size_bytes, filename=named
        )

    def update_progress(self, job_id: str, stage: str, progress: float) -> None:
        waits = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED, ~jobs.c.ready)
        self._update(waits, stage=stage, progress=progress)

    def reject(self, job_id: str, error: JobError) -> bool:
        with self.database.writing() as connection:
            waits = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED, ~jobs.c.ready)
            return _fail(connection, self.database.now(connection), waits, error)

    def claim(
        self, worker: str, lease_s: Seconds, attempts: int, queues: Sequence[str] = (), *, requests_only: bool = False
    ) -> Job | None:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            lapsed = _lapsed(now)
            if requests_only:
                # It lives, as it shows by asking: a store or a machine that was away for a while took nothing from it.
                lapsed = and_(lapsed, jobs.c.worker != worker)
            # A row that somebody has locked is no reason for all others to wait.
            self._release(connection, now, lapsed, attempts, service_crash=False, skip_locked=True)
            following = scheduling.next_number(now, queues, requests_only=requests_only)
            taken = change(
                connection, now, CLAIM, jobs.c.number == following, worker=worker,
                lease_until=now + timedelta(seconds=lease_s), attempts=jobs.c.attempts + 1,
            )  # fmt: skip
            if not taken:
                return None
            job = _get(connection, taken[0].id)
            scheduling.record_turn(connection, job.order.owner)
            if job.attempts == 1:
                stored_metrics.observe(
                    connection, stored_metrics.JOB_WAIT_SECONDS, max((now - job.created_at).total_seconds(), 0.0)
                )
        return job

    def renew(self, job_id: str, worker: str, lease_s: Seconds, stage: str, progress: float) -> bool:
        with self.database.writing() as connection:
            until = self.database.now(connection) + timedelta(seconds=lease_s)
            renewed = connection.execute(
                update(jobs)
                .where(_held(job_id, worker))
                .values(
                    lease_until=until,
                    stage=stage,
                    progress=case((jobs.c.progress > progress, jobs.c.progress), else_=progress),
                )
            )
        return renewed.rowcount > 0

    def finalize(self, job_id: str, worker: str, first: int, utterances: Sequence[Utterance]) -> bool:
        with self.database.writing() as connection:
            held = select(jobs.c.finalized, jobs.c.kind).where(_held(job_id, worker)).with_for_update()
            row = connection.execute(held).one_or_none()
            if row is None:
                return False
            last = first + len(utterances)
            if row.kind is JobKind.REQUEST or row.finalized >= last:
                return True
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(finalized=last))
            now = self.database.now(connection)
            since = max(first, row.finalized)
            _append_utterances(connection, now, job_id, utterances[since - first :], since)
        return True

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        text = serialization.dump_transcript(transcript)
        with self.database.writing() as connection:
            now = self.database.now(connection)
            held = select(jobs.c.finalized, jobs.c.kind).where(_held(job_id, worker)).with_for_update()
            row = connection.execute(held).one_or_none()
            if row is None:
                return False
            if row.kind is JobKind.JOB:
                unsettled = transcript.utterances[row.finalized :]
                _append_utterances(connection, now, job_id, unsettled, row.finalized)
            change(
                connection, now, FINISH, _held(job_id, worker), stage="done", progress=1.0,
                finalized=len(transcript.utterances), duration=transcript.duration,
                timings=serialization.dump_timings(transcript.timings),
            )  # fmt: skip
            connection.execute(insert(transcripts).values(job_id=job_id, transcript=text))
            for timing in transcript.timings:
                stored_metrics.observe(connection, stored_metrics.STAGE_SECONDS, timing.seconds, stage=timing.stage)
            took_s = sum(timing.seconds for timing in transcript.timings)
            if transcript.duration > 0:
                stored_metrics.observe(connection, stored_metrics.REAL_TIME_FACTOR, took_s / transcript.duration)
        return True

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        with self.database.writing() as connection:
            return _fail(connection, self.database.now(connection), _held(job_id, worker), error)

    def retry(self, job_id: str, worker: str, error: JobError, attempts: int, delay_s: Seconds) -> bool:
        faults = jobs.c.attempts - jobs.c.worker_crashes - jobs.c.service_crashes
        again = and_(_held(job_id, worker), faults < attempts, jobs.c.kind == JobKind.JOB)
        with self.database.writing() as connection:
            now = self.database.now(connection)
            if change(connection, now, GIVE_BACK, again, not_before=now + timedelta(seconds=delay_s)):
                chunk_rows.free(connection, worker, died=False, job_id=job_id)
                return True
            return _fail(connection, now, _held(job_id, worker), error)

    def requeue(self, job_id: str, worker: str) -> bool:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            given = change(connection, now, GIVE_BACK, _held(job_id, worker), attempts=jobs.c.attempts - 1)
            chunk_rows.free(connection, worker, died=False)
            return bool(given)

    def release(self, worker: str | None, attempts: int, *, service_crash: bool = False) -> tuple[str, ...]:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            held = _lapsed(now) if worker is None else and_(jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)
            released = self._release(connection, now, held, attempts, service_crash=service_crash)
            if worker is not None:
                chunk_rows.free(connection, worker, died=not service_crash)
                worker_reports.forget(connection, worker)
        return released

    def extend_caller_lease(self, job_id: str, caller_lease_s: Seconds) -> None:
        with self.database.writing() as connection:
            until = self.database.now(connection) + timedelta(seconds=caller_lease_s)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(caller_lease_until=until))

    def cancel(self, job_id: str) -> Job:
        with self.database.writing() as connection:
            change(connection, self.database.now(connection), CANCEL, jobs.c.id == job_id)
            return _get(connection, job_id)

    def delete(self, job_id: str) -> None:
        with self.database.writing() as connection:
            connection.execute(delete(outbox_tasks).where(outbox_tasks.c.job_id == job_id))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))
            # What came of an end in between. Whoever holds one already finds the job gone, and forgets it.
            late = (
                select(outbox_tasks.c.number).where(outbox_tasks.c.job_id == job_id).with_for_update(skip_locked=True)
            )
            connection.execute(delete(outbox_tasks).where(outbox_tasks.c.number.in_(late)))

    def transcript(self, job_id: str) -> Transcript:
        with self.database.reading() as connection:
            text = connection.execute(
                select(transcripts.c.transcript).where(transcripts.c.job_id == job_id)
            ).scalar_one_or_none()
        if text is None:
            raise JobNotFound(f"There is no transcript of a job {job_id!r}: it is unknown, not done, or was deleted.")
        return serialization.load_transcript(text)

    def events(self, job_id: str, after: int = 0, limit: int = 1_000) -> tuple[JobEvent, ...]:
        wanted = select(events).where(events.c.job_id == job_id, events.c.number > after)
        with self.database.reading() as connection:
            rows = connection.execute(wanted.order_by(events.c.number).limit(limit)).all()
        return tuple(_event(row) for row in rows)

    def waiting(self, kind: JobKind) -> int:
        count = select(func.count()).select_from(jobs).where(UNFINISHED, jobs.c.kind == kind)
        with self.database.reading() as connection:
            return connection.execute(count).scalar_one()

    def positions(self) -> Mapping[str, int]:
        with self.database.reading() as connection:
            return scheduling.positions(connection)

    def counts(self) -> Mapping[JobState, int]:
        with self.database.reading() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return dict.fromkeys(JobState, 0) | {state: count for state, count in rows}  # noqa: C416 - rows are no pairs

    def unfinished(self) -> tuple[Job, ...]:
        with self.database.reading() as connection:
            rows = connection.execute(select(*COLUMNS).where(UNFINISHED).order_by(jobs.c.number)).all()
            return jobs_of(connection, rows)

    def requests(self) -> tuple[str, ...]:
        wanted = select(jobs.c.id).where(jobs.c.kind == JobKind.REQUEST).order_by(jobs.c.number)
        with self.database.reading() as connection:
            return tuple(connection.execute(wanted).scalars())

    def known(self, job_ids: Collection[str], *, ended: bool = False) -> frozenset[str]:
        known: set[str] = set()
        wanted = select(jobs.c.id).where(~UNFINISHED) if ended else select(jobs.c.id)
        with self.database.reading() as connection:
            for some in in_batches(job_ids):
                known.update(connection.execute(wanted.where(jobs.c.id.in_(some))).scalars())
        return frozenset(known)

    def abandoned_requests(self) -> tuple[str, ...]:
        with self.database.reading() as connection:
            now = self.database.now(connection)
            gone = and_(jobs.c.kind == JobKind.REQUEST, jobs.c.caller_lease_until < now)
            return tuple(connection.execute(select(jobs.c.id).where(gone).order_by(jobs.c.number)).scalars())

    def ended_before(self, moment: datetime, *, with_recording: bool = False) -> tuple[str, ...]:
        past = and_(~UNFINISHED, jobs.c.ended_at < moment)
        if with_recording:
            past = and_(past, jobs.c.recording)
        with self.database.reading() as connection:
            return tuple(connection.execute(select(jobs.c.id).where(past).order_by(jobs.c.number)).scalars())

    def forget_recording(self, job_id: str) -> None:
        self._update(jobs.c.id == job_id, recording=False)

    def report(self, report: WorkerReport) -> None:
        with self.database.writing() as connection:
            worker_reports.keep(connection, report, self.database.now(connection))

    def reports(self, fresh_s: Seconds | None = None) -> tuple[WorkerReport, ...]:
        with self.database.reading() as connection:
            since = None if fresh_s is None else self.database.now(connection) - timedelta(seconds=fresh_s)
            return worker_reports.read(connection, since)

    def count(self, metric: str, **labels: str) -> None:
        with self.database.writing() as connection:
            stored_metrics.count(connection, metric, **labels)

    def observe(self, metric: str, value: float, **labels: str) -> None:
        with self.database.writing() as connection:
            stored_metrics.observe(connection, metric, value, **labels)

    def _update(self, where: ColumnElement[bool], **values: object) -> bool:
        with self.database.writing() as connection:
            return connection.execute(update(jobs).where(where).values(**values)).rowcount > 0

    def _release(
        self,
        connection: Connection,
        now: datetime,
        held: ColumnElement[bool],
        attempts: int,
        *,
        service_crash: bool,
        skip_locked: bool = False,
    ) -> tuple[str, ...]:
        wanted = select(*COLUMNS).where(held).order_by(jobs.c.number)
        dead = connection.execute(wanted.with_for_update(skip_locked=skip_locked)).all()
        for row in dead:
            job = job_of(row)
            # The death is the job's; a portion that its holder had in hand is not blamed a second time.
            chunk_rows.free(connection, job.worker or "", died=False)
            count = (job.service_crashes if service_crash else job.worker_crashes) + 1
            this = jobs.c.id == job.id
            noted = {"service_crashes" if service_crash else "worker_crashes": count}
            if count >= (MAX_SERVICE_CRASHES if service_crash else attempts):
                error = JobError(JobFailed.code, _why_given_up(count, service_crash=service_crash))
                change(connection, now, FAIL, this, error_code=error.code, error_message=error.message, **noted)
            else:
                excess = count - SERVICE_CRASHES_WITHOUT_DELAY if service_crash else 0
                # None rather than this moment: a clock that goes back would make it wait.
                until = now + timedelta(seconds=min(2.0**excess, 60.0)) if excess > 0 else None
                change(connection, now, GIVE_BACK, this, not_before=until, **noted)
        return tuple(row.id for row in dead)


def _fail(connection: Connection, now: datetime, where: ColumnElement[bool], error: JobError) -> bool:
    return bool(change(connection, now, FAIL, where, error_code=error.code, error_message=error.message))


def _why_given_up(count: int, *, service_crash: bool) -> str:
    if service_crash:
        return (
            f"The whole service died {count} times while it worked on this recording, so it is not tried again. Ask "
            "whoever runs the service for the cause; then send the recording again."
        )
    return (
        f"The worker died {count} times while it worked on this recording, so it is not tried again. "
        "The recording may need more memory than there is, or bring a library down: the log has the details."
    )


def _get(connection: Connection, job_id: str) -> Job:
    known = job_id.isascii() and job_id.isprintable()  # no database takes NUL in a text
    row = connection.execute(select(*COLUMNS).where(jobs.c.id == job_id)).one_or_none() if known else None
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}: it never was, or it was deleted.")
    return jobs_of(connection, (row,))[0]


def _append_utterances(
    connection: Connection, now: datetime, job_id: str, utterances: Sequence[Utterance], first: int
) -> None:
    for index, utterance in enumerate(utterances, start=first):
        body = json.loads(serialization.dump_utterance(utterance))
        append_event(connection, now, job_id, "utterance", {"index": index, "utterance": body})


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


def _held(job_id: str, worker: str) -> ColumnElement[bool]:
    """The job is this worker's. A lease that ran out is still held until somebody takes the job."""
    return and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)


def _lapsed(now: datetime) -> ColumnElement[bool]:
    return and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now)
