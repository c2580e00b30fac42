"""The job store in a SQL database: one transaction for each method of ``JobStore``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, delete, insert, select, update

from diarist.errors import JobNotFound
from diarist.jobs.db import (
    job_events,
    job_queries,
    metrics_storage,
    pagination,
    scheduling,
    serialization,
    worker_reports,
)
from diarist.jobs.db.chunks import release_chunks
from diarist.jobs.db.database import Database, open_database, serialize_writers, upsert
from diarist.jobs.db.leases import fail_jobs, held_by, lease_expired, release_jobs
from diarist.jobs.db.outbox import FETCH, add_task
from diarist.jobs.db.quotas import check_fingerprint, check_limits, check_stored_bytes
from diarist.jobs.db.rows import jobs_of, values_of
from diarist.jobs.db.schema import jobs, labels, outbox_tasks, owners, transcripts
from diarist.jobs.db.transitions import CANCEL, CLAIM, FAIL, FINISH, REQUEUE, apply_transition, emit_side_effects
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


def open_store(settings: Settings) -> SqlJobStore:
    """Open the job store of this installation, and create it if it does not exist.

    Raises:
        ConfigurationError: DATABASE_URL does not name a supported database.
        StoreUnavailable: The store cannot be read or written; the message says what to do.
    """
    return SqlJobStore(open_database(settings))


class SqlJobStore:
    """A ``JobStore`` in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def close(self) -> None:
        self.database.close()

    def create(self, job: Job, limits: Limits | None = None, caller_lease_s: Seconds | None = None) -> Job:
        spec = job.spec
        with self.database.writing() as connection:
            now = self.database.now(connection)
            if caller_lease_s is not None:
                job = replace(job, caller_lease_until=now + timedelta(seconds=caller_lease_s))
            if limits is not None or spec.idempotency_key is not None:
                # Without this lock, two transactions could both add the last job that is allowed.
                serialize_writers(connection)
            if spec.idempotency_key is not None:
                earlier = job_queries.find_by_idempotency_key(connection, spec.owner, spec.idempotency_key)
                if earlier is not None:
                    return check_fingerprint(earlier, spec.fingerprint)
            if limits is not None:
                check_limits(connection, spec.owner, limits)
                check_stored_bytes(connection, spec.owner, job.size_bytes, limits.stored_bytes)
            connection.execute(insert(jobs).values(values_of(job)))
            if spec.labels:
                rows = [{"job_id": job.id, "name": name, "value": value} for name, value in spec.labels]
                connection.execute(insert(labels), rows)
            upsert(connection, owners, {"owner": spec.owner, "turn": 0}, {})
            emit_side_effects(connection, now, job.id, spec.kind, job.state, spec.webhook_url)
            if spec.source_url is not None:
                add_task(connection, job.id, FETCH, {}, now)
        return job

    def check_limits(self, owner: str, limits: Limits, size_bytes: int = 0) -> None:
        with self.database.reading() as connection:
            check_limits(connection, owner, limits)
            check_stored_bytes(connection, owner, size_bytes, limits.stored_bytes)

    def get(self, job_id: str) -> Job:
        with self.database.reading() as connection:
            return job_queries.get_job(connection, job_id)

    def list_jobs(self, job_filter: JobFilter, limit: int, cursor: str | None = None) -> JobPage:
        with self.database.reading() as connection:
            rows = connection.execute(pagination.page_query(job_filter, limit + 1, cursor)).all()
            page = jobs_of(connection, rows[:limit])
        return JobPage(page, pagination.cursor_after(page[-1]) if len(rows) > limit else None)

    def find_by_idempotency_key(self, owner: str, idempotency_key: str) -> Job | None:
        with self.database.reading() as connection:
            return job_queries.find_by_idempotency_key(connection, owner, idempotency_key)

    def attach_recording(
        self, job_id: str, size_bytes: int, filename: str, stored_limit_bytes: int | None = None
    ) -> bool:
        is_queued = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
        new_filename = case((jobs.c.filename == "", filename), else_=jobs.c.filename)
        values = {
            "ready": True, "recording": True, "stage": "queued", "progress": 0.0, "size_bytes": size_bytes,
            "filename": new_filename,
        }  # fmt: skip
        with self.database.writing() as connection:
            # Without this lock, two downloads could both take the last of the space.
            serialize_writers(connection)
            owner = connection.execute(select(jobs.c.owner).where(is_queued, ~jobs.c.recording)).scalar()
            if owner is not None:
                check_stored_bytes(connection, owner, size_bytes, stored_limit_bytes)
            return connection.execute(update(jobs).where(is_queued).values(**values)).rowcount > 0

    def update_progress(self, job_id: str, stage: str, progress: float) -> None:
        is_queued = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED, ~jobs.c.ready)
        self._update(is_queued, stage=stage, progress=progress)

    def reject(self, job_id: str, error: JobError) -> bool:
        with self.database.writing() as connection:
            is_queued = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED, ~jobs.c.ready)
            return fail_jobs(connection, self.database.now(connection), is_queued, error)

    def claim(
        self, worker: str, lease_s: Seconds, attempts: int, queues: Sequence[str] = (), *, requests_only: bool = False
    ) -> Job | None:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            expired = lease_expired(now)
            if requests_only:
                # This worker is alive, so its lease expired only because the store or the machine was not available.
                expired = and_(expired, jobs.c.worker != worker)
            # A row that another transaction has locked must not block all workers.
            release_jobs(connection, now, expired, attempts, service_crash=False, skip_locked=True)
            next_number = scheduling.next_number(now, queues, requests_only=requests_only)
            claimed = apply_transition(
                connection, now, CLAIM, jobs.c.number == next_number, worker=worker,
                lease_until=now + timedelta(seconds=lease_s), attempts=jobs.c.attempts + 1,
            )  # fmt: skip
            if not claimed:
                return None
            job = job_queries.get_job(connection, claimed[0].id)
            scheduling.record_turn(connection, job.spec.owner)
            if job.attempts == 1:
                metrics_storage.observe(
                    connection, metrics_storage.JOB_WAIT_SECONDS, max((now - job.created_at).total_seconds(), 0.0)
                )
        return job

    def renew(self, job_id: str, worker: str, lease_s: Seconds, stage: str, progress: float) -> bool:
        with self.database.writing() as connection:
            until = self.database.now(connection) + timedelta(seconds=lease_s)
            renewed = connection.execute(
                update(jobs)
                .where(held_by(job_id, worker))
                .values(
                    lease_until=until,
                    stage=stage,
                    progress=case((jobs.c.progress > progress, jobs.c.progress), else_=progress),
                )
            )
        return renewed.rowcount > 0

    def finalize(self, job_id: str, worker: str, first: int, utterances: Sequence[Utterance]) -> bool:
        with self.database.writing() as connection:
            query = select(jobs.c.finalized, jobs.c.kind).where(held_by(job_id, worker)).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return False
            last = first + len(utterances)
            if row.kind is JobKind.REQUEST or row.finalized >= last:
                return True
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(finalized=last))
            now = self.database.now(connection)
            since = max(first, row.finalized)
            job_events.append_utterances(connection, now, job_id, utterances[since - first :], since)
        return True

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        text = serialization.dump_transcript(transcript)
        with self.database.writing() as connection:
            now = self.database.now(connection)
            query = select(jobs.c.finalized, jobs.c.kind).where(held_by(job_id, worker)).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return False
            if row.kind is JobKind.JOB:
                remaining = transcript.utterances[row.finalized :]
                job_events.append_utterances(connection, now, job_id, remaining, row.finalized)
            apply_transition(
                connection, now, FINISH, held_by(job_id, worker), stage="done", progress=1.0,
                finalized=len(transcript.utterances), duration=transcript.duration,
                timings=serialization.dump_timings(transcript.timings),
            )  # fmt: skip
            connection.execute(insert(transcripts).values(job_id=job_id, transcript=text))
            for timing in transcript.timings:
                metrics_storage.observe(connection, metrics_storage.STAGE_SECONDS, timing.seconds, stage=timing.stage)
            took_s = sum(timing.seconds for timing in transcript.timings)
            if transcript.duration > 0:
                metrics_storage.observe(connection, metrics_storage.REAL_TIME_FACTOR, took_s / transcript.duration)
        return True

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        with self.database.writing() as connection:
            return fail_jobs(connection, self.database.now(connection), held_by(job_id, worker), error)

    def retry(self, job_id: str, worker: str, error: JobError, attempts: int, delay_s: Seconds) -> bool:
        errors = jobs.c.attempts - jobs.c.worker_crashes - jobs.c.service_crashes
        can_retry = and_(held_by(job_id, worker), errors < attempts, jobs.c.kind == JobKind.JOB)
        with self.database.writing() as connection:
            now = self.database.now(connection)
            if apply_transition(connection, now, REQUEUE, can_retry, not_before=now + timedelta(seconds=delay_s)):
                release_chunks(connection, worker, crashed=False, job_id=job_id)
                return True
            return fail_jobs(connection, now, held_by(job_id, worker), error)

    def requeue(self, job_id: str, worker: str) -> bool:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            requeued = apply_transition(connection, now, REQUEUE, held_by(job_id, worker), attempts=jobs.c.attempts - 1)
            release_chunks(connection, worker, crashed=False)
            return bool(requeued)

    def release(self, worker: str | None, attempts: int, *, service_crash: bool = False) -> tuple[str, ...]:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            is_held = and_(jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)
            where = lease_expired(now) if worker is None else is_held
            released = release_jobs(connection, now, where, attempts, service_crash=service_crash)
            if worker is not None:
                release_chunks(connection, worker, crashed=not service_crash)
                worker_reports.delete_report(connection, worker)
        return released

    def extend_caller_lease(self, job_id: str, caller_lease_s: Seconds) -> None:
        with self.database.writing() as connection:
            until = self.database.now(connection) + timedelta(seconds=caller_lease_s)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(caller_lease_until=until))

    def cancel(self, job_id: str) -> Job:
        with self.database.writing() as connection:
            apply_transition(connection, self.database.now(connection), CANCEL, jobs.c.id == job_id)
            return job_queries.get_job(connection, job_id)

    def delete(self, job_id: str) -> None:
        with self.database.writing() as connection:
            connection.execute(delete(outbox_tasks).where(outbox_tasks.c.job_id == job_id))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))
            # Tasks that were added when the job ended in between. A runner that holds one finds no job, and deletes it.
            tasks = select(outbox_tasks.c.number).where(outbox_tasks.c.job_id == job_id)
            unlocked = tasks.with_for_update(skip_locked=True)
            connection.execute(delete(outbox_tasks).where(outbox_tasks.c.number.in_(unlocked)))

    def get_transcript(self, job_id: str) -> Transcript:
        with self.database.reading() as connection:
            text = connection.execute(
                select(transcripts.c.transcript).where(transcripts.c.job_id == job_id)
            ).scalar_one_or_none()
        if text is None:
            raise JobNotFound(
                f"There is no transcript of a job {job_id!r}: it does not exist, has not succeeded, or was deleted."
            )
        return serialization.load_transcript(text)

    def list_events(self, job_id: str, after: int = 0, limit: int = 1_000) -> tuple[JobEvent, ...]:
        with self.database.reading() as connection:
            return job_events.list_events(connection, job_id, after, limit)

    def count_unfinished(self, kind: JobKind) -> Mapping[str, int]:
        with self.database.reading() as connection:
            return job_queries.count_unfinished(connection, kind)

    def list_waiting_queues(self) -> tuple[str, ...]:
        with self.database.reading() as connection:
            return job_queries.list_waiting_queues(connection)

    def fail_waiting(self, queue: str, waited_s: Seconds, error: JobError) -> tuple[str, ...]:
        with self.database.writing() as connection:
            now = self.database.now(connection)
            before = now - timedelta(seconds=waited_s)
            is_late = and_(job_queries.WAITING, jobs.c.queue == queue, jobs.c.created_at < before)
            failed = apply_transition(
                connection, now, FAIL, is_late, error_code=error.code, error_message=error.message
            )
        return tuple(row.id for row in failed)

    def queue_positions(self) -> Mapping[str, int]:
        with self.database.reading() as connection:
            return scheduling.positions(connection)

    def count_by_state(self) -> Mapping[JobState, int]:
        with self.database.reading() as connection:
            return job_queries.count_by_state(connection)

    def write_lock_is_held(self) -> bool:
        return self.database.write_lock_is_held()

    def list_unfinished(self) -> tuple[Job, ...]:
        with self.database.reading() as connection:
            return job_queries.list_unfinished(connection)

    def list_requests(self) -> tuple[str, ...]:
        with self.database.reading() as connection:
            return job_queries.list_requests(connection)

    def filter_existing(self, job_ids: Collection[str], *, ended: bool = False) -> frozenset[str]:
        with self.database.reading() as connection:
            return job_queries.filter_existing(connection, job_ids, ended=ended)

    def list_abandoned_requests(self) -> tuple[str, ...]:
        with self.database.reading() as connection:
            return job_queries.list_abandoned_requests(connection, self.database.now(connection))

    def list_ended_before(self, moment: datetime, *, with_recording: bool = False) -> tuple[str, ...]:
        with self.database.reading() as connection:
            return job_queries.list_ended_before(connection, moment, with_recording=with_recording)

    def mark_recording_removed(self, job_id: str) -> None:
        self._update(jobs.c.id == job_id, recording=False)

    def save_worker_report(self, report: WorkerReport) -> None:
        with self.database.writing() as connection:
            worker_reports.save(connection, report, self.database.now(connection))

    def list_worker_reports(self, fresh_s: Seconds | None = None) -> tuple[WorkerReport, ...]:
        with self.database.reading() as connection:
            since = None if fresh_s is None else self.database.now(connection) - timedelta(seconds=fresh_s)
            return worker_reports.read(connection, since)

    def increment_metric(self, metric: str, **labels: str) -> None:
        with self.database.writing() as connection:
            metrics_storage.increment(connection, metric, **labels)

    def observe_metric(self, metric: str, value: float, **labels: str) -> None:
        with self.database.writing() as connection:
            metrics_storage.observe(connection, metric, value, **labels)

    def _update(self, where: ColumnElement[bool], **values: object) -> bool:
        with self.database.writing() as connection:
            return connection.execute(update(jobs).where(where).values(**values)).rowcount > 0
