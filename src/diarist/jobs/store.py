"""The job store on a SQL database.

Leases are in UTC wall time, because processes share them. A clock that jumps does no harm to results: whoever holds a
job is asked at every step (``renew``, ``finish`` and ``fail`` name the worker), so that a job which was taken twice
still ends once. Jumping forward can make a running job look abandoned, so that work is done again; jumping back makes
an abandoned job wait longer, unless the supervisor sees the death and calls ``release``, which looks at no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from diarist.errors import JobFailed, JobNotFound, StoreUnavailable
from diarist.jobs import codec, schema
from diarist.jobs.model import Job, JobError, JobState, WorkerReport
from diarist.jobs.schema import jobs, transcripts, workers
from diarist.jobs.sqlite import READ_ONLY, explain, open_sqlite
from diarist.settings import Settings
from diarist.types import Transcript

FILE_NAME = "jobs.sqlite3"
"""Of the store in DATA_DIR."""

_COLUMNS = tuple(column for column in jobs.columns if column.name != "number")
_UNFINISHED = jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING])


def utc_now() -> datetime:
    """The time of day, aware."""
    return datetime.now(UTC)


def open_store(settings: Settings) -> SqlJobStore:
    """The store of this installation, made where it is missing.

    Raises:
        StoreUnavailable: it cannot be read or written; the message says what to do.
    """
    return SqlJobStore(open_sqlite(settings.data_dir / FILE_NAME))


class SqlJobStore:
    """A ``JobStore`` on a database that SQLAlchemy speaks to; ``clock`` gives aware times in UTC.

    Raises:
        StoreUnavailable: the tables cannot be made, or are of a newer Diarist.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock
        with self._writing() as connection:
            version = schema.upgrade(connection)
        if version != schema.VERSION:
            raise StoreUnavailable(
                f"The job store {engine.url.database} has version {version}, and this Diarist knows {schema.VERSION}. "
                "Start the version that wrote it, or set DATA_DIR to another folder."
            )

    def close(self) -> None:
        self._engine.dispose()

    def create(self, job: Job) -> None:
        with self._writing() as connection:
            connection.execute(insert(jobs).values(_values(job)))

    def get(self, job_id: str) -> Job:
        with self._reading() as connection:
            return self._get(connection, job_id)

    def claim(self, worker: str, lease_s: float, attempts: int) -> Job | None:
        now = self._clock()
        open_to_all = or_(jobs.c.state == JobState.QUEUED, and_(_lapsed(now), jobs.c.attempts < attempts))
        # Lock the row where the database can (SQLite has locked the file): or two could choose the same one.
        oldest = (
            select(jobs.c.number)
            .where(open_to_all)
            .order_by(jobs.c.number)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claim = (
            update(jobs)
            .where(jobs.c.number == oldest)
            .values(
                state=JobState.RUNNING,
                worker=worker,
                lease_until=now + timedelta(seconds=lease_s),
                attempts=jobs.c.attempts + 1,
                started_at=now,
                stage="starting",
                progress=0.0,
            )
            .returning(*_COLUMNS)
        )
        with self._writing() as connection:
            row = connection.execute(claim).one_or_none()
        return None if row is None else _job(row)

    def renew(self, job_id: str, worker: str, lease_s: float, stage: str, progress: float) -> bool:
        return self._change(
            update(jobs)
            .where(_held(job_id, worker))
            .values(
                lease_until=self._clock() + timedelta(seconds=lease_s),
                stage=stage,
                progress=case((jobs.c.progress > progress, jobs.c.progress), else_=progress),
            )
        )

    def finish(self, job_id: str, worker: str, transcript: Transcript) -> bool:
        text = codec.dump_transcript(transcript)
        with self._writing() as connection:
            done = connection.execute(
                update(jobs)
                .where(_held(job_id, worker))
                .values(**self._end(JobState.SUCCEEDED), stage="done", progress=1.0)
            )
            if done.rowcount == 0:
                return False
            connection.execute(insert(transcripts).values(job_id=job_id, transcript=text))
        return True

    def fail(self, job_id: str, worker: str, error: JobError) -> bool:
        return self._change(
            update(jobs)
            .where(_held(job_id, worker))
            .values(**self._end(JobState.FAILED), error_code=error.code, error_message=error.message)
        )

    def hand_back(self, job_id: str, worker: str) -> bool:
        return self._change(update(jobs).where(_held(job_id, worker)).values(**_queued(), attempts=jobs.c.attempts - 1))

    def release(self, worker: str | None, attempts: int) -> tuple[str, ...]:
        now = self._clock()
        held = _lapsed(now) if worker is None else and_(jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)
        why = (
            f"The worker died {attempts} times while it worked on this recording, so it is not tried again. "
            "The recording may need more memory than there is, or bring a library down: the log has the details."
        )
        with self._writing() as connection:
            failed = connection.execute(
                update(jobs)
                .where(held, jobs.c.attempts >= attempts)
                .values(**self._end(JobState.FAILED), error_code=JobFailed.code, error_message=why)
                .returning(jobs.c.number, jobs.c.id)
            ).all()
            queued = connection.execute(
                update(jobs).where(held).values(_queued()).returning(jobs.c.number, jobs.c.id)
            ).all()
            if worker is not None:
                connection.execute(delete(workers).where(workers.c.worker == worker))
        return tuple(row.id for row in sorted((*failed, *queued), key=lambda row: int(row.number)))

    def cancel(self, job_id: str) -> Job:
        with self._writing() as connection:
            connection.execute(
                update(jobs).where(jobs.c.id == job_id, _UNFINISHED).values(self._end(JobState.CANCELED))
            )
            return self._get(connection, job_id)

    def delete(self, job_id: str) -> None:
        with self._writing() as connection:
            connection.execute(delete(transcripts).where(transcripts.c.job_id == job_id))
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def transcript(self, job_id: str) -> Transcript:
        with self._reading() as connection:
            text = connection.execute(
                select(transcripts.c.transcript).where(transcripts.c.job_id == job_id)
            ).scalar_one_or_none()
        if text is None:
            raise JobNotFound(f"There is no transcript of a job {job_id!r}: it is unknown, not done, or was deleted.")
        return codec.load_transcript(text)

    def waiting(self) -> int:
        with self._reading() as connection:
            return connection.execute(select(func.count()).select_from(jobs).where(_UNFINISHED)).scalar_one()

    def unfinished(self) -> tuple[Job, ...]:
        return self._all(_UNFINISHED)

    def ended(self) -> tuple[Job, ...]:
        return self._all(~_UNFINISHED)

    def report(self, report: WorkerReport) -> None:
        with self._writing() as connection:
            connection.execute(delete(workers).where(workers.c.worker == report.worker))
            connection.execute(
                insert(workers).values(
                    worker=report.worker,
                    pid=report.pid,
                    state=report.state,
                    models=codec.dump_models(report.models),
                    errors=codec.dump_texts(report.errors),
                    reported_at=report.reported_at,
                    device=report.device,
                )
            )

    def reports(self) -> tuple[WorkerReport, ...]:
        with self._reading() as connection:
            rows = connection.execute(select(workers).order_by(workers.c.reported_at.desc(), workers.c.worker)).all()
        return tuple(
            WorkerReport(
                worker=row.worker,
                pid=row.pid,
                state=row.state,
                models=codec.load_models(row.models),
                errors=codec.load_texts(row.errors),
                reported_at=row.reported_at,
                device=row.device,
            )
            for row in rows
        )

    def _all(self, which: ColumnElement[bool]) -> tuple[Job, ...]:
        with self._reading() as connection:
            rows = connection.execute(select(*_COLUMNS).where(which).order_by(jobs.c.number)).all()
        return tuple(_job(row) for row in rows)

    def _get(self, connection: Connection, job_id: str) -> Job:
        row = connection.execute(select(*_COLUMNS).where(jobs.c.id == job_id)).one_or_none()
        if row is None:
            raise JobNotFound(f"There is no job {job_id!r}: it never was, or it was deleted.")
        return _job(row)

    def _change(self, statement: Update) -> bool:
        with self._writing() as connection:
            return connection.execute(statement).rowcount > 0

    def _end(self, state: JobState) -> dict[str, object]:
        return {"state": state, "ended_at": self._clock(), "worker": None, "lease_until": None}

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise explain(error, self._engine) from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(**{READ_ONLY: True}) as connection:
                yield connection
        except DBAPIError as error:
            raise explain(error, self._engine) from error


def _held(job_id: str, worker: str) -> ColumnElement[bool]:
    """The job is this worker's. A lease that ran out is still held until somebody takes the job."""
    return and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.worker == worker)


def _lapsed(now: datetime) -> ColumnElement[bool]:
    return and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now)


def _queued() -> dict[str, object]:
    return {"state": JobState.QUEUED, "worker": None, "lease_until": None, "stage": "queued", "progress": 0.0}


def _values(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "state": job.state,
        "options": codec.dump_options(job.options),
        "filename": job.filename,
        "size_bytes": job.size_bytes,
        "request_id": job.request_id,
        "created_at": job.created_at,
        "stage": job.stage,
        "progress": job.progress,
        "attempts": job.attempts,
        "worker": job.worker,
        "lease_until": job.lease_until,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "error_code": None if job.error is None else job.error.code,
        "error_message": None if job.error is None else job.error.message,
    }


def _job(row: Row[*tuple[object, ...]]) -> Job:
    return Job(
        id=row.id,
        state=row.state,
        options=codec.load_options(row.options),
        filename=row.filename,
        size_bytes=row.size_bytes,
        request_id=row.request_id,
        created_at=row.created_at,
        stage=row.stage,
        progress=row.progress,
        attempts=row.attempts,
        worker=row.worker,
        lease_until=row.lease_until,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=None if row.error_code is None else JobError(row.error_code, row.error_message),
    )
