"""Portions of the work on long recordings, in the job store: one worker posts them, all do them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, or_, select, update

from diarist.jobs.db.database import Database, upsert
from diarist.jobs.db.job_queries import UNFINISHED
from diarist.jobs.db.schema import chunks, jobs
from diarist.jobs.model import JobState
from diarist.protocols import Chunk, ChunkStage
from diarist.types import Seconds


@dataclass(frozen=True, slots=True)
class Task:
    """A portion that a worker has in hand."""

    job_id: str
    digest: str
    """Of what is asked: 40 hexadecimal digits, the same whoever asks it again."""

    channel: int
    chunk: Chunk
    request_id: str
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class ChunkState:
    """How a portion is that was posted."""

    done: bool
    worker_crashes: int
    """How many workers died while they worked on it."""


class ChunkStore:
    """Portions by job. Safe to call from any thread or process; raises ``StoreUnavailable`` as the job store does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, engine: str, queue: str, channel: int, wanted: Sequence[Chunk]) -> tuple[str, ...]:
        """Have portions done by whoever has the same engine; those that were posted before stay as they are.

        Of a job that nobody works on any more none are posted: nobody would remove them.

        Returns:
            The digest of each, in order.
        """
        digests = tuple(_digest(engine, channel, chunk) for chunk in wanted)
        with self._database.writing() as connection:
            running = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING)
            if connection.execute(running.with_for_update()).one_or_none() is None:
                return digests
            for number, (digest, chunk) in enumerate(zip(digests, wanted, strict=True)):
                values = {
                    "job_id": job_id, "digest": digest, "number": number, "engine": engine, "queue": queue,
                    "channel": channel, "stage": chunk.stage, "first_sample": chunk.first_sample,
                    "stop_sample": chunk.stop_sample, "channel_samples": chunk.channel_samples,
                    "work": chunk.work, "done": False, "worker_crashes": 0,
                }  # fmt: skip
                upsert(connection, chunks, values, {})
        return digests

    def claim(
        self,
        worker: str,
        lease_s: Seconds,
        engine: str,
        queues: Sequence[str] = (),
        only: tuple[str, int, ChunkStage] | None = None,
    ) -> Task | None:
        """Take the next portion that nobody has in hand, of any job in these queues that is being worked on.

        ``only``: of one job that this worker holds, channel and stage, whatever the queue. That of a worker who was
        silent for longer than the lease counts as the death of one.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            fits = and_(_free(now), chunks.c.engine == engine, jobs.c.state == JobState.RUNNING)
            if only is not None:
                job_id, channel, stage = only
                fits = and_(
                    fits, jobs.c.worker == worker,
                    chunks.c.job_id == job_id, chunks.c.channel == channel, chunks.c.stage == stage,
                )  # fmt: skip
            elif queues:
                fits = and_(fits, chunks.c.queue.in_(queues))
            found = connection.execute(
                select(chunks, jobs.c.request_id, jobs.c.traceparent)
                .join(jobs, jobs.c.id == chunks.c.job_id)
                .where(fits)
                .order_by(jobs.c.number, chunks.c.number)
                .limit(1)
                .with_for_update(skip_locked=True, of=chunks)
            ).one_or_none()
            if found is None:
                return None
            connection.execute(
                update(chunks)
                .where(chunks.c.job_id == found.job_id, chunks.c.digest == found.digest)
                .values(
                    worker=worker,
                    lease_until=now + timedelta(seconds=lease_s),
                    worker_crashes=case(
                        (chunks.c.worker.is_(None), chunks.c.worker_crashes), else_=chunks.c.worker_crashes + 1
                    ),
                )
            )
        asked = Chunk(found.stage, found.first_sample, found.stop_sample, found.channel_samples, found.work)
        return Task(found.job_id, found.digest, found.channel, asked, found.request_id, found.traceparent)

    def renew(self, task: Task, worker: str, lease_s: Seconds) -> bool:
        """Lengthen the lease. False: nobody wants it from this worker any more.

        It is wanted as long as the job has not ended, also between one holder of the job and the next.
        """
        wanted = select(jobs.c.id).where(jobs.c.id == task.job_id, UNFINISHED).exists()
        with self._database.writing() as connection:
            until = self._database.now(connection) + timedelta(seconds=lease_s)
            renewed = connection.execute(
                update(chunks).where(_is(task), chunks.c.worker == worker, wanted).values(lease_until=until)
            )
        return renewed.rowcount > 0

    def complete(self, task: Task, worker: str) -> bool:
        """Its result is kept. False: it is not this worker's any more; whoever does it again finds the same."""
        with self._database.writing() as connection:
            noted = connection.execute(
                update(chunks)
                .where(_is(task), chunks.c.worker == worker)
                .values(done=True, worker=None, lease_until=None)
            )
        return noted.rowcount > 0

    def states(self, job_id: str) -> Mapping[str, ChunkState]:
        """How each portion of a job is, by digest."""
        wanted = select(chunks.c.digest, chunks.c.done, chunks.c.worker_crashes).where(chunks.c.job_id == job_id)
        with self._database.reading() as connection:
            return {row.digest: ChunkState(row.done, row.worker_crashes) for row in connection.execute(wanted)}

    def release(self, worker: str) -> None:
        """What this worker has in hand may be taken by others."""
        with self._database.writing() as connection:
            release_chunks(connection, worker, crashed=False)


def release_chunks(connection: Connection, worker: str, *, crashed: bool, job_id: str | None = None) -> None:
    """Let other workers claim the chunks that a worker holds, of one job or of all jobs.

    A transaction that also locks the job must do that first, so that no two transactions wait for each other.

    Args:
        connection: The connection with the transaction.
        worker: The worker that holds the chunks.
        crashed: Whether this counts as a crash of the worker.
        job_id: The job; None means all jobs.
    """
    held = update(chunks).where(chunks.c.worker == worker, ~chunks.c.done)
    if job_id is not None:
        held = held.where(chunks.c.job_id == job_id)
    worker_crashes = chunks.c.worker_crashes + (1 if crashed else 0)
    connection.execute(held.values(worker=None, lease_until=None, worker_crashes=worker_crashes))


def delete_chunks(connection: Connection, job_id: str) -> None:
    """Delete all chunks of a job."""
    connection.execute(delete(chunks).where(chunks.c.job_id == job_id))


def _digest(engine: str, channel: int, chunk: Chunk) -> str:
    asked = (engine, channel, chunk.stage, chunk.first_sample, chunk.stop_sample, chunk.channel_samples)
    return hashlib.sha256(repr(asked).encode() + chunk.work).hexdigest()[:40]


def _is(task: Task) -> ColumnElement[bool]:
    return and_(chunks.c.job_id == task.job_id, chunks.c.digest == task.digest)


def _free(now: datetime) -> ColumnElement[bool]:
    return and_(~chunks.c.done, or_(chunks.c.worker.is_(None), chunks.c.lease_until < now))
